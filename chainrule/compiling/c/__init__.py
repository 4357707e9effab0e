"""Engine "c": a step printed as plain C, compiled by the system's compiler and called with raw pointers."""

from chainrule.compiling.c.build import NoCompiler
from chainrule.compiling.c.lowering import NoSpelling
from chainrule.compiling.c.step import CStep, compile_c

__all__ = ["CStep", "NoCompiler", "NoSpelling", "compile_c"]

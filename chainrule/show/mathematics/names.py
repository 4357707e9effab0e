"""How a person's name is set as mathematics: w1 as w with the index 1, y_hat with a hat, alpha as α."""

from __future__ import annotations

import re
from dataclasses import dataclass

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ϵ", "eps": "ε", "zeta": "ζ", "eta": "η",
    "theta": "θ", "kappa": "κ", "lambd": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ",
    "sigma": "σ", "tau": "τ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
    "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Sigma": "Σ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω",
}  # fmt: skip
_ACCENTS = ("hat", "bar", "tilde")


@dataclass(frozen=True)
class Name:
    """A letter or a word, with what stands over it and below it."""

    base: str
    accent: str = ""  # "hat", "bar" or "tilde"
    index: str = ""


def decomposed(name: str) -> Name:
    """The parts of a name.

    >>> decomposed("w1"), decomposed("x_train")
    (Name(base='w', accent='', index='1'), Name(base='x', accent='', index='train'))
    >>> decomposed("y_hat"), decomposed("layers.0.weight")
    (Name(base='y', accent='hat', index=''), Name(base='layers.0.weight', accent='', index=''))
    """
    if not re.fullmatch(r"\w+", name) or name != name.strip("_"):
        return Name(name)  # x_ is not x
    base, _, after = name.partition("_")
    if numbered := re.fullmatch(r"([^\W\d_]+)(\d+)", base):
        base, digits = numbered[1], numbered[2]
        after = f"{digits}_{after}" if after else digits
    base = GREEK.get(base, base)
    if after in _ACCENTS and len(base) == 1:
        return Name(base, accent=after)
    if not base or (after and "_" in after) or (after and len(base) > 1 and not after.isdigit()):
        return Name(name)
    return Name(base, index=after)

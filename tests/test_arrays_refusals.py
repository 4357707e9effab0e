"""NumPy code that torch cannot run: what is lacking is named, with its line."""

import numpy as np
import pytest
from test_arrays import recorded

from chainrule.arrays.numpy_as_torch import as_arrays
from chainrule.errors import ChainruleError


def lacking(x):
    y = x * 2
    return np.partition(y, 1)


def lacking_keyword(x):
    return np.sum(x, where=x > 0)


def lacking_attribute(x):
    return x.strides


def lacking_in_place(x):
    x.sort()


def lacking_way(x):
    np.multiply.at(x, [0], 2.0)


@pytest.mark.parametrize(
    ("code", "named", "line"),
    [
        (lacking, r"np\.partition", 2),
        (lacking_keyword, r"np\.sum with where=", 1),
        (lacking_attribute, r"\.strides", 1),
        (lacking_in_place, r"\.sort", 1),
        (lacking_way, r"np\.multiply\.at", 1),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_lacking_is_named_with_the_line(code, named, line):
    with pytest.raises(ChainruleError, match=named) as caught:
        recorded(code, [np.ones(3)])
    assert caught.value.site.line == code.__code__.co_firstlineno + line


def local_import(x):
    import numpy

    out = numpy.zeros(3)
    out[0] = numpy.exp(x)[0]
    return out


def test_a_function_that_imports_numpy_itself_is_refused():
    with pytest.raises(ChainruleError, match="at the top of the file") as caught:
        recorded(local_import, [np.ones(3)])
    assert caught.value.site.line == local_import.__code__.co_firstlineno + 1


def test_an_array_of_numpys_own_takes_no_array():
    outside = np.zeros((2, 3))
    with pytest.raises(ChainruleError, match="NumPy's own"):
        outside[0] = as_arrays(np.ones(3))
    with pytest.raises(ChainruleError, match="add"):
        outside += as_arrays(np.ones(3))

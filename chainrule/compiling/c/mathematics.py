"""C text that steps are written with: functions that GCC turns into vector instructions."""

from __future__ import annotations

import re

HEAD = """\
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
"""

EXP = """\
/* e to the x, to a unit in the last place: 2 to the n, in two steps, times a polynomial in what is left. */
static inline float exp_float(float x)
{
    x = x > 89.0f ? 89.0f : x;
    x = x < -176.0f ? -176.0f : x;  /* whose two steps are by 0: a product too small for a number of full size is slow */
    const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    const float z = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * z + 1.3981999507e-3f;
    p = p * z + 8.3334519073e-3f;
    p = p * z + 4.1665795894e-2f;
    p = p * z + 1.6666665459e-1f;
    p = p * z + 5.0000001201e-1f;
    p = p * z * z + z + 1.0f;
    const int32_t e = (int32_t) n, half = e >> 1;
    const union { int32_t i; float f; } s = {(half + 127) << 23}, t = {(e - half + 127) << 23};
    return p * s.f * t.f;
}"""

LOG = """\
/* The natural logarithm: the exponent's, plus a polynomial in the mantissa. */
static inline float log_float(float x)
{
    const bool tiny = x < 1.17549435e-38f;
    const union { float f; int32_t i; } u = {tiny ? x * 8388608.0f : x};
    int32_t e = ((u.i >> 23) & 255) - 126 - (tiny ? 23 : 0);
    const union { int32_t i; float f; } m = {(u.i & 0x007fffff) | 0x3f000000};
    const bool low = m.f < 0.707106781f;
    const float z = (low ? m.f + m.f : m.f) - 1.0f, n = (float) (e - low), zz = z * z;
    float p = 7.0376836292e-2f;
    p = p * z - 1.1514610310e-1f;
    p = p * z + 1.1676998740e-1f;
    p = p * z - 1.2420140846e-1f;
    p = p * z + 1.4249322787e-1f;
    p = p * z - 1.6668057665e-1f;
    p = p * z + 2.0000714765e-1f;
    p = p * z - 2.4999993993e-1f;
    p = p * z + 3.3333331174e-1f;
    const float y = z + (p * z * zz + n * -2.12194440e-4f - 0.5f * zz) + n * 0.693359375f;
    return x > 0.0f ? x < INFINITY ? y : x : x == 0.0f ? -INFINITY : NAN;
}"""

TANH = """\
/* The hyperbolic tangent: a polynomial near 0, an exponential elsewhere. */
static inline float tanh_float(float x)
{
    const float z = x * x, far = 1.0f - 2.0f / (exp_float(2.0f * fabsf(x)) + 1.0f);
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    p = p * z * x + x;
    return fabsf(x) < 0.625f ? p : copysignf(far, x);
}"""

ERF = """\
/* The error function: a polynomial near 0, 1 less an exponential of one elsewhere. */
static inline float erf_float(float x)
{
    const float a = fabsf(x), z = x * x;
    float q = (-1.72853470e-5f * a + 3.83197126e-4f) * z + (-3.88396438e-3f * a + 2.42546219e-2f);
    q = q * a - 1.06777877e-1f;
    q = q * a - 6.34846687e-1f;
    q = q * a - 1.28717512e-1f;
    const float far = 1.0f - exp_float(q * a - a);
    float p = -5.96761703e-4f;
    p = p * z + 4.99119423e-3f;
    p = p * z - 2.67681349e-2f;
    p = p * z + 1.12819925e-1f;
    p = p * z - 3.76125336e-1f;
    p = p * z + 1.28379166e-1f;
    return a > 0.927734375f ? copysignf(far, x) : p * x + x;
}"""

EXTREMES = """\
/* {which} of two numbers; NaN is {which} than all. */
static inline {t} {name}_{t}({t} x, {t} y) {{ return x {sign} y || x != x ? x : y; }}
#pragma omp declare reduction({name}_{t} : {t} : omp_out = {name}_{t}(omp_in, omp_out)) initializer(omp_priv = {first})"""

TOP = """\
/* The larger of two numbers, of which NaN is none. */
static inline {t} top_{t}({t} x, {t} y) {{ return x > y ? x : y; }}"""

PACKED = """\
/* to (rows x columns, dense) = from, where `row` and `column` lead to the next one. Columns that lie in memory one after
   another are turned in registers, squares of {lanes}; the last squares overlap those before. */
__attribute__((noinline)) static void packed_{t}(int rows, int columns, const {t} *from, long row, long column, {t} *to)
{{
    if (row != 1 || rows < {lanes} || columns < {lanes}) {{
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) to[(long) i * columns + j] = from[i * row + j * column];
        return;
    }}
    typedef {t} lanes __attribute__((vector_size({size})));
    typedef {t} lanes_at __attribute__((vector_size({size}), aligned({item}), may_alias));
    typedef {integer} order __attribute__((vector_size({size})));
    for (int i0 = 0; i0 < rows; i0 += {lanes})
        for (int j0 = 0; j0 < columns; j0 += {lanes}) {{
            const int i = i0 < rows - {lanes} ? i0 : rows - {lanes}, j = j0 < columns - {lanes} ? j0 : columns - {lanes};
            lanes v[{lanes}], w[{lanes}];
#pragma GCC unroll {lanes}
            for (int n = 0; n < {lanes}; n++) v[n] = *(const lanes_at *) (from + (j + n) * column + i);
{stages}
#pragma GCC unroll {lanes}
            for (int n = 0; n < {lanes}; n++) *(lanes_at *) (to + (long) (i + n) * columns + j) = v[n];
        }}
}}"""


def packed(t: str, vector: int) -> str:
    """The definition of `packed` for vectors of so many bytes."""
    item = 4 if t == "float" else 8
    lanes, stages, step = vector // item, [], 1
    while step < lanes:
        first = ", ".join(str(lanes + n - step if n & step else n) for n in range(lanes))
        second = ", ".join(str(lanes + n if n & step else n + step) for n in range(lanes))
        stages.append(f"""\
#pragma GCC unroll {lanes}
            for (int n = 0; n < {lanes}; n++)
                w[n] = n & {step} ? __builtin_shuffle(v[n - {step}], v[n], (order) {{{second}}})
                         : __builtin_shuffle(v[n], v[n + {step}], (order) {{{first}}});
            memcpy(v, w, sizeof v);""")
        step *= 2
    integer = "int32_t" if t == "float" else "int64_t"
    return PACKED.format(t=t, lanes=lanes, size=vector, item=item, integer=integer, stages="\n".join(stages))


FIRST = {
    ("larger", "float"): "-INFINITY",
    ("larger", "double"): "-INFINITY",
    ("smaller", "float"): "INFINITY",
    ("smaller", "double"): "INFINITY",
    **{
        ("larger", t): low
        for t, low in (("int64_t", "INT64_MIN"), ("int32_t", "INT32_MIN"), ("uint8_t", "0"), ("bool", "false"))
    },
    **{
        ("smaller", t): top
        for t, top in (("int64_t", "INT64_MAX"), ("int32_t", "INT32_MAX"), ("uint8_t", "255"), ("bool", "true"))
    },
}


def definitions(text: str, vector: int) -> list[str]:
    """The definitions of those functions that the text calls, for vector registers of so many bytes."""
    found = ["#include <omp.h>"] if "omp_get_thread_num" in text else []
    if re.search(r"\b(exp|tanh|erf)_float\(", text):
        found.append(EXP)
    if "log_float(" in text:
        found.append(LOG)
    if "tanh_float(" in text:
        found.append(TANH)
    if "erf_float(" in text:
        found.append(ERF)
    for (name, t), first in FIRST.items():
        if f"{name}_{t}(" in text or f"{name}_{t} :" in text:
            found.append(
                EXTREMES.format(name=name, t=t, which=name, sign=">" if name == "larger" else "<", first=first)
            )
    for t in ("float", "double"):
        if f"top_{t}(" in text:
            found.append(TOP.format(t=t))
        if f"packed_{t}(" in text:
            found.append(packed(t, vector))
    return found

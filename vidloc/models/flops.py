"""Counts the operations of a function from its jaxpr.

XLA's own cost analysis counts the body of a scan once, so a model that scans over its layers looks far too cheap.
Here a scan's body counts as often as it runs, and rematerialised work counts each time.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def count(function: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of the matrix products and convolutions of function(*args).

    A multiplication and an addition are two operations. Elementwise work, reductions, norms and softmax are not
    counted (a few per cent of a transformer). Results that nobody uses are not counted. Of a `cond` the dearest
    branch counts; the trips of a `while_loop` are not known, so its body counts once.

    args: arrays, jax.ShapeDtypeStruct or trees of them; nothing is computed.
    """
    return _count(jax.jit(function).trace(*args).jaxpr.jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    needed = {id(v) for v in jaxpr.outvars}
    total = 0
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(v) in needed for v in equation.outvars):
            needed.update(id(v) for v in equation.invars)
            total += _equation(equation)
    return total


def _equation(equation: core.JaxprEqn) -> int:
    name = equation.primitive.name
    if name == 'dot_general':
        return _dot_general(equation)
    if name == 'conv_general_dilated':
        return _convolution(equation)
    inner = [_count(jaxpr) for jaxpr in _jaxprs(equation.params)]
    if name == 'cond':
        return max(inner)
    return sum(inner) * (equation.params['length'] if name == 'scan' else 1)


def _jaxprs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The jaxprs among the parameters of an equation: of jit, scan, while, cond, remat, custom derivatives."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _dot_general(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _convolution(equation: core.JaxprEqn) -> int:
    """Every output is a product sum over the kernel's window and the input channels of its group."""
    kernel = equation.invars[1].aval.shape
    spec = equation.params['dimension_numbers'].rhs_spec  # (output channels, input channels, *window)
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel[i] for i in spec[1:])

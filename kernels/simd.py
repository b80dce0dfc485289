"""Vectors of `LANES` numbers as values inside Numba code, so that kernels are vectorised by design and not by luck.

LLVM lowers them to whatever the processor has. An index is a tuple with one integer for every dimension, as of a single
element; a vector lies along the last dimension, which must be contiguous. Nothing checks bounds, and no index counts
from the end.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from depthup.compiling import compiler

LANES = 8
_FLAGS = ("contract", "reassoc", "nsz")  # a multiplication and an addition may become one instruction

compile_kernel = compiler(nogil=True, error_model="numpy", fastmath=set(_FLAGS))


class Vector(types.Type):
    """Type of `LANES` numbers of one floating-point type."""

    def __init__(self, dtype: types.Float):
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype} x {LANES})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        number = manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(number, LANES))


def _element(context, builder, array_type, array, index_type, index):
    """Pointer to the element at an index."""
    indices = [
        context.cast(builder, value, kind, types.intp)
        for value, kind in zip(cgutils.unpack_tuple(builder, index), index_type, strict=True)
    ]
    whole = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, whole, indices)


def _vector_at(context, builder, array_type, array, index_type, index, lanes=LANES):
    """Pointer to `lanes` numbers from an index on, and the alignment that it surely has."""
    element = _element(context, builder, array_type, array, index_type, index)
    vector = ir.VectorType(context.get_value_type(array_type.dtype), lanes)
    return builder.bitcast(element, vector.as_pointer()), array_type.dtype.bitwidth // 8


def _shuffle(builder, a, b, lanes):
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))


def _splat(builder, vector_type, number):
    first = builder.insert_element(ir.Constant(vector_type, ir.Undefined), number, ir.IntType(32)(0))
    return _shuffle(builder, first, first, [0] * LANES)


@intrinsic
def load(typing, array, index):
    """The vector of `array` that starts at `index`."""

    def generate(context, builder, signature, arguments):
        pointer, alignment = _vector_at(context, builder, array, arguments[0], index, arguments[1])
        return builder.load(pointer, align=alignment)

    return Vector(array.dtype)(array, index), generate


@intrinsic
def store(typing, array, index, vector):
    """Write a vector into `array` from `index` on."""

    def generate(context, builder, signature, arguments):
        pointer, alignment = _vector_at(context, builder, array, arguments[0], index, arguments[1])
        builder.store(arguments[2], pointer, align=alignment)
        return context.get_dummy_value()

    return types.void(array, index, vector), generate


@intrinsic
def load_apart(typing, array, index):
    """Two vectors: of the `2 * LANES` numbers from `index` on those at even and those at odd places."""
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        pointer, alignment = _vector_at(context, builder, array, arguments[0], index, arguments[1], 2 * LANES)
        both = builder.load(pointer, align=alignment)
        parts = [_shuffle(builder, both, both, range(first, 2 * LANES, 2)) for first in (0, 1)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(vector, 2)(array, index), generate


@intrinsic
def store_interleaved(typing, array, index, even, odd):
    """The inverse of `load_apart`."""

    def generate(context, builder, signature, arguments):
        pointer, alignment = _vector_at(context, builder, array, arguments[0], index, arguments[1], 2 * LANES)
        lanes = [place // 2 + LANES * (place % 2) for place in range(2 * LANES)]
        builder.store(_shuffle(builder, *arguments[2:], lanes), pointer, align=alignment)
        return context.get_dummy_value()

    return types.void(array, index, even, odd), generate


@intrinsic
def broadcast(typing, array, index):
    """A vector of `LANES` times one element of `array`."""

    def generate(context, builder, signature, arguments):
        element = _element(context, builder, array, arguments[0], index, arguments[1])
        return _splat(builder, context.get_value_type(signature.return_type), builder.load(element))

    return Vector(array.dtype)(array, index), generate


@intrinsic
def zeros_like(typing, array):
    """A vector of zeros of an array's type."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return Vector(array.dtype)(array), generate


@intrinsic
def multiply(typing, a, b):
    """`a * b`."""

    def generate(context, builder, signature, arguments):
        return builder.fmul(*arguments, flags=_FLAGS)

    return a(a, b), generate


@intrinsic
def add(typing, a, b):
    """`a + b`."""

    def generate(context, builder, signature, arguments):
        return builder.fadd(*arguments, flags=_FLAGS)

    return a(a, b), generate


@intrinsic
def keep(typing, vector, wanted):
    """The numbers of a vector where those of `wanted` are not 0, and else 0, whatever they are."""

    def generate(context, builder, signature, arguments):
        zeros = ir.Constant(arguments[0].type, None)
        return builder.select(builder.fcmp_unordered("!=", arguments[1], zeros), arguments[0], zeros)

    return vector(vector, wanted), generate


@intrinsic
def total(typing, vector):
    """The sum of a vector's numbers, always in the same order."""

    def generate(context, builder, signature, arguments):
        value, width = arguments[0], LANES
        while width > 1:
            width //= 2
            upper = _shuffle(builder, value, value, [width + lane if lane < width else 0 for lane in range(LANES)])
            value = builder.fadd(value, upper)
        return builder.extract_element(value, ir.IntType(32)(0))

    return vector.dtype(vector), generate


@compile_kernel
def add_or_multiply(a, b, additive):
    """`a + b` if `additive`, else `a * b`; where it is True or None its type tells, and kernels branch on nothing."""
    return add(a, b) if additive else multiply(a, b)

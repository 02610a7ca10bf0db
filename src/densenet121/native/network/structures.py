"""The structures that Python fills in for the kernels of the network.

Each mirrors the one of the same name in C++. Order, types and meaning must agree: whoever changes
one changes the other, and raises ``VERSION`` here and ``kVersion`` in ``kernels.cpp``. A library
with another version, or other sizes, is not loaded.
"""

import ctypes

VERSION = 10


class LayerArguments(ctypes.Structure):
    """``LayerArguments`` of native/network/block.h."""

    _fields_ = [
        *(
            (f"{name}1", ctypes.c_void_p)
            for name in ("gamma", "beta", "mean", "variance", "weight")
        ),
        *(
            (f"{name}2", ctypes.c_void_p)
            for name in ("gamma", "beta", "mean", "variance", "weight")
        ),
        *((f"grad_{name}1", ctypes.c_void_p) for name in ("gamma", "beta", "weight")),
        *((f"grad_{name}2", ctypes.c_void_p) for name in ("gamma", "beta", "weight")),
        ("strides1", ctypes.c_int64 * 4),
        ("strides2", ctypes.c_int64 * 4),
        ("eps1", ctypes.c_double),
        ("eps2", ctypes.c_double),
    ]


class BlockArguments(ctypes.Structure):
    """``BlockArguments`` of native/network/block.h."""

    _fields_ = [
        ("images", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("input_columns", ctypes.c_int64),
        ("layers", ctypes.c_int64),
        ("growth", ctypes.c_int64),
        ("bottleneck", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("frozen", ctypes.c_int64),
        ("z_stride", ctypes.c_int64),
        ("patch_pixels", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("z", ctypes.c_void_p),
        ("mean", ctypes.c_void_p),
        ("variance", ctypes.c_void_p),
        ("grad_y", ctypes.c_void_p),
        ("grad_buffer", ctypes.c_void_p),
        ("grad_bottleneck", ctypes.c_void_p),
        ("grad_x", ctypes.c_void_p),
        ("layer", ctypes.POINTER(LayerArguments)),
    ]


class InferenceArguments(ctypes.Structure):
    """``InferenceArguments`` of native/network/inference_layers.h."""

    _fields_ = [
        ("block", BlockArguments),
        ("weights", ctypes.c_void_p),
        ("norms", ctypes.c_void_p),
        ("fingerprint", ctypes.c_uint64),
        ("weight_numbers", ctypes.c_int64),
        ("norm_numbers", ctypes.c_int64),
    ]


class TransitionArguments(ctypes.Structure):
    """``TransitionArguments`` of native/network/transition.h."""

    _fields_ = [
        ("images", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("output_columns", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("pool", ctypes.c_int64),
        ("frozen", ctypes.c_int64),
        ("statistics_given", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("gamma", ctypes.c_void_p),
        ("beta", ctypes.c_void_p),
        ("mean", ctypes.c_void_p),
        ("variance", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("grad_y", ctypes.c_void_p),
        ("grad_x", ctypes.c_void_p),
        ("grad_gamma", ctypes.c_void_p),
        ("grad_beta", ctypes.c_void_p),
        ("grad_weight", ctypes.c_void_p),
        ("strides", ctypes.c_int64 * 4),
        ("eps", ctypes.c_double),
    ]


class StemArguments(ctypes.Structure):
    """``StemArguments`` of native/network/stem.h."""

    _fields_ = [
        ("images", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("out_height", ctypes.c_int64),
        ("out_width", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("pad_top", ctypes.c_int64),
        ("pad_left", ctypes.c_int64),
        ("frozen", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("winner", ctypes.c_void_p),
        ("gamma", ctypes.c_void_p),
        ("beta", ctypes.c_void_p),
        ("mean", ctypes.c_void_p),
        ("variance", ctypes.c_void_p),
        ("grad_y", ctypes.c_void_p),
        ("grad_x", ctypes.c_void_p),
        ("grad_gamma", ctypes.c_void_p),
        ("grad_beta", ctypes.c_void_p),
        ("eps", ctypes.c_double),
    ]


class FirstConvolution(ctypes.Structure):
    """``FirstConvolution`` of native/network/first_convolution.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "channels")),
        *((name, ctypes.c_int64) for name in ("columns", "kernel", "stride", "padding")),
        ("x_strides", ctypes.c_int64 * 4),
        ("weight_strides", ctypes.c_int64 * 4),
        ("x", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
    ]


class ClassifierArguments(ctypes.Structure):
    """``ClassifierArguments`` of native/network/classifier.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "columns", "classes", "threads")),
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "y")),
    ]


class NetworkArguments(ctypes.Structure):
    """``NetworkArguments`` of native/network/network.h."""

    _fields_ = [
        ("images", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("blocks", ctypes.c_int64),
        ("pooled", ctypes.c_int64),
        ("averages", ctypes.c_int64),
        ("first", FirstConvolution),
        ("stem", StemArguments),
        ("block", ctypes.POINTER(InferenceArguments)),
        ("transition", ctypes.POINTER(TransitionArguments)),
        ("y", ctypes.c_void_p),
        ("means", ctypes.c_void_p),
        ("classifier", ClassifierArguments),
        ("weights", ctypes.c_void_p),
        ("norms", ctypes.c_void_p),
        ("fingerprint", ctypes.c_uint64),
        ("weight_numbers", ctypes.c_int64),
        ("norm_numbers", ctypes.c_int64),
    ]


class Int8Product(ctypes.Structure):
    """``Int8Product`` of native/network/int8_product.h."""

    _fields_ = [
        ("columns", ctypes.c_int64),
        ("fours", ctypes.c_int64),
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
    ]


class Int8Affine(ctypes.Structure):
    """``Int8Affine`` of native/network/int8_affine.h."""

    _fields_ = [
        ("columns", ctypes.c_int64),
        ("factor", ctypes.c_void_p),
        ("shift", ctypes.c_void_p),
    ]


class Int8Layer(ctypes.Structure):
    """``Int8Layer`` of native/network/int8_arguments.h."""

    _fields_ = [
        ("affine", Int8Affine),
        ("conv1", Int8Product),
        ("conv2", Int8Product),
        ("patches", ctypes.c_void_p),
    ]


class Int8Block(ctypes.Structure):
    """``Int8Block`` of native/network/int8_arguments.h."""

    _fields_ = [
        ("input_columns", ctypes.c_int64),
        ("layers", ctypes.c_int64),
        ("growth", ctypes.c_int64),
        ("bottleneck", ctypes.c_int64),
        ("by_patches", ctypes.c_int64),
        ("layer", ctypes.POINTER(Int8Layer)),
        ("transition", Int8Affine),
        ("reduction", Int8Product),
    ]


class Int8Network(ctypes.Structure):
    """``Int8Network`` of native/network/int8_arguments.h."""

    _fields_ = [
        ("threads", ctypes.c_int64),
        ("blocks", ctypes.c_int64),
        ("pooled", ctypes.c_int64),
        ("averages", ctypes.c_int64),
        ("first", FirstConvolution),
        ("pool", StemArguments),
        ("conv0", Int8Product),
        ("low", ctypes.c_float * 4),
        ("step", ctypes.c_float * 4),
        ("zero", ctypes.c_uint8 * 4),
        ("block", ctypes.POINTER(Int8Block)),
        ("feature_scale", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("classifier", ClassifierArguments),
    ]


# By the names that the library knows them by.
STRUCTURES: tuple[type[ctypes.Structure], ...] = (
    LayerArguments,
    BlockArguments,
    InferenceArguments,
    TransitionArguments,
    StemArguments,
    FirstConvolution,
    NetworkArguments,
    Int8Product,
    Int8Affine,
    Int8Layer,
    Int8Block,
    Int8Network,
    ClassifierArguments,
)

// Decoupled dynamic filters, forward and backward: Zhou et al., CVPR 2021, arXiv 2104.14107, equation 2.
//
//   x               [B, C, H, W]
//   channel_filter  [B, N, C, k * k]                      N = scale * scale branches, branch = i * scale + j
//   spatial_filter  [B, N, k * k, Ho, Wo]                 Ho = (H - 1) / stride + 1, Wo likewise
//   out             [B, C, scale * Ho, scale * Wo]
//
//   out[b, c, scale * h + i, scale * w + j] =
//       sum over taps t = ty * k + tx of weight(spatial_filter[b, n, t, h, w], channel_filter[b, n, c, t])
//           * x[b, c, h * stride + (ty - k / 2) * dilation, w * stride + (tx - k / 2) * dilation]
//
// `weight` is the product or the sum; x is 0 outside the image. All tensors are contiguous. The launcher (cuda.py)
// compiles this file per kernel size and dtype and defines DDF_KERNEL_SIZE, one or more of DDF_FLOAT32, DDF_FLOAT64,
// DDF_FLOAT16, DDF_BFLOAT16, and the block sizes DDF_THREADS, DDF_CHANNELS, DDF_REDUCED_CHANNELS.
// Every sum has a fixed order and no atomics, so results repeat bit by bit.

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace ddf {

constexpr int kSize = DDF_KERNEL_SIZE;
constexpr int kTaps = kSize * kSize;
constexpr int kThreads = DDF_THREADS;
// Channels that share one reading of the spatial filter: in the kernels per pixel, and in the sum over pixels.
constexpr int kChannels = DDF_CHANNELS;
constexpr int kReducedChannels = DDF_REDUCED_CHANNELS;
// Taps of one filter row that a thread sums at once: the whole row, or pieces of it where registers would run out.
constexpr int kColumns = kSize <= 5 ? kSize : 4;

// Planes have fewer than 2^31 pixels (the launcher checks); anything larger than a plane is addressed in 64 bits.
struct Geometry {
    int batch, channels, height, width, out_height, out_width, dilation, stride, scale;

    __device__ int branches() const { return scale * scale; }
    __device__ int source_row(int h, int ty) const { return h * stride + (ty - kSize / 2) * dilation; }
    __device__ int source_column(int w, int tx) const { return w * stride + (tx - kSize / 2) * dilation; }
    __device__ long long source_plane() const { return (long long)height * width; }
    __device__ long long filter_plane() const { return (long long)out_height * out_width; }
    __device__ long long out_plane() const { return filter_plane() * branches(); }
    __device__ long long out_offset(int h, int w, int branch) const {
        const int i = branch / scale, j = branch - i * scale;
        return (long long)(h * scale + i) * (out_width * scale) + (w * scale + j);
    }
};

struct OutPixel {
    int h, w, branch;

    __device__ OutPixel(int pixel, const Geometry& g) {
        const int row_length = g.out_width * g.scale;
        const int row = pixel / row_length, column = pixel - row * row_length;
        h = row / g.scale;
        w = column / g.scale;
        branch = (row - h * g.scale) * g.scale + (column - w * g.scale);
    }
};

// Takes the fastest digit, of the given base, off a mixed-radix block index.
__device__ inline int take_digit(int& index, int base) {
    const int quotient = index / base, digit = index - quotient * base;
    index = quotient;
    return digit;
}

__device__ inline int ceil_div(long long a, int b) { return (int)((a + b - 1) / b); }

__device__ inline float widen(float value) { return value; }
__device__ inline double widen(double value) { return value; }
__device__ inline float widen(__half value) { return __half2float(value); }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

__device__ inline void store(float* address, float value) { *address = value; }
__device__ inline void store(double* address, double value) { *address = value; }
__device__ inline void store(__half* address, float value) { *address = __float2half(value); }
__device__ inline void store(__nv_bfloat16* address, float value) { *address = __float2bfloat16(value); }

// How the two filters make one weight, and the derivative of that weight with respect to either.
struct Product {
    template <typename T> __device__ static T weight(T spatial, T channel) { return spatial * channel; }
    template <typename T> __device__ static T by_spatial(T channel) { return channel; }
    template <typename T> __device__ static T by_channel(T spatial) { return spatial; }
};

struct Sum {
    template <typename T> __device__ static T weight(T spatial, T channel) { return spatial + channel; }
    template <typename T> __device__ static T by_spatial(T) { return T(1); }
    template <typename T> __device__ static T by_channel(T) { return T(1); }
};

// One thread: one output pixel, kChannels channels. Grid: batch x tiles of output pixels x channel blocks.
template <typename Scalar, typename Accumulator, typename Combine>
__device__ void forward(const Scalar* __restrict__ x, const Scalar* __restrict__ channel_filter,
                        const Scalar* __restrict__ spatial_filter, Scalar* __restrict__ out, const Geometry& g) {
    int block = blockIdx.x;
    const int first = take_digit(block, ceil_div(g.channels, kChannels)) * kChannels;
    const int pixel = take_digit(block, ceil_div(g.out_plane(), kThreads)) * kThreads + (int)threadIdx.x;
    const int b = block;
    if (pixel >= g.out_plane()) return;

    const int count = g.channels - first;
    const OutPixel at(pixel, g);
    const long long filter = (long long)b * g.branches() + at.branch;
    const Scalar* const source = x + ((long long)b * g.channels + first) * g.source_plane();
    const Scalar* const channel = channel_filter + (filter * g.channels + first) * kTaps;
    const Scalar* const spatial = spatial_filter + filter * kTaps * g.filter_plane() + at.h * g.out_width + at.w;

    Accumulator sums[kChannels] = {};
    for (int ty = 0; ty < kSize; ++ty) {
        const int row = g.source_row(at.h, ty);
        if (row < 0 || row >= g.height) continue;
        for (int tx = 0; tx < kSize; ++tx) {
            const int column = g.source_column(at.w, tx);
            if (column < 0 || column >= g.width) continue;
            const int tap = ty * kSize + tx;
            const Accumulator dynamic = widen(spatial[tap * g.filter_plane()]);
            const Scalar* const neighbour = source + row * g.width + column;
#pragma unroll
            for (int c = 0; c < kChannels; ++c) {
                if (c >= count) break;
                const Accumulator weight = Combine::weight(dynamic, Accumulator(widen(channel[c * kTaps + tap])));
                sums[c] += weight * widen(neighbour[c * g.source_plane()]);
            }
        }
    }

    Scalar* const target = out + ((long long)b * g.channels + first) * g.out_plane() + pixel;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
        if (c < count) store(target + c * g.out_plane(), sums[c]);
    }
}

// One thread: one input pixel, kChannels channels; gathers from every output that read it. Grid: batch x tiles of input
// pixels x channel blocks.
template <typename Scalar, typename Accumulator, typename Combine>
__device__ void grad_x(const Scalar* __restrict__ grad_out, const Scalar* __restrict__ channel_filter,
                       const Scalar* __restrict__ spatial_filter, Scalar* __restrict__ grad, const Geometry& g) {
    int block = blockIdx.x;
    const int first = take_digit(block, ceil_div(g.channels, kChannels)) * kChannels;
    const int pixel = take_digit(block, ceil_div(g.source_plane(), kThreads)) * kThreads + (int)threadIdx.x;
    const int b = block;
    if (pixel >= g.source_plane()) return;

    const int count = g.channels - first;
    const int y = pixel / g.width, x = pixel - y * g.width;
    const Scalar* const gradient = grad_out + ((long long)b * g.channels + first) * g.out_plane();

    Accumulator sums[kChannels] = {};
    for (int ty = 0; ty < kSize; ++ty) {
        const int strided_h = y - (ty - kSize / 2) * g.dilation, h = strided_h / g.stride;
        if (strided_h < 0 || h >= g.out_height || h * g.stride != strided_h) continue;
        for (int tx = 0; tx < kSize; ++tx) {
            const int strided_w = x - (tx - kSize / 2) * g.dilation, w = strided_w / g.stride;
            if (strided_w < 0 || w >= g.out_width || w * g.stride != strided_w) continue;
            const int tap = ty * kSize + tx;
            for (int branch = 0; branch < g.branches(); ++branch) {
                const long long filter = (long long)b * g.branches() + branch;
                const Scalar* const channel = channel_filter + (filter * g.channels + first) * kTaps + tap;
                const Scalar* const arriving = gradient + g.out_offset(h, w, branch);
                const Accumulator dynamic =
                    widen(spatial_filter[(filter * kTaps + tap) * g.filter_plane() + h * g.out_width + w]);
#pragma unroll
                for (int c = 0; c < kChannels; ++c) {
                    if (c >= count) break;
                    const Accumulator weight = Combine::weight(dynamic, Accumulator(widen(channel[c * kTaps])));
                    sums[c] += weight * widen(arriving[c * g.out_plane()]);
                }
            }
        }
    }

    Scalar* const target = grad + ((long long)b * g.channels + first) * g.source_plane() + pixel;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
        if (c < count) store(target + c * g.source_plane(), sums[c]);
    }
}

// One thread: one output pixel and one row of taps, summed over all channels. Grid: batch x tiles of output pixels x k.
template <typename Scalar, typename Accumulator, typename Combine>
__device__ void grad_spatial(const Scalar* __restrict__ grad_out, const Scalar* __restrict__ x,
                             const Scalar* __restrict__ channel_filter, Scalar* __restrict__ grad, const Geometry& g) {
    int block = blockIdx.x;
    const int ty = take_digit(block, kSize);
    const int pixel = take_digit(block, ceil_div(g.out_plane(), kThreads)) * kThreads + (int)threadIdx.x;
    const int b = block;
    if (pixel >= g.out_plane()) return;

    const OutPixel at(pixel, g);
    const long long filter = (long long)b * g.branches() + at.branch;
    const int row = g.source_row(at.h, ty);
    const bool row_inside = row >= 0 && row < g.height;
    Scalar* const target =
        grad + (filter * kTaps + ty * kSize) * g.filter_plane() + at.h * g.out_width + at.w;

    for (int tx_first = 0; tx_first < kSize; tx_first += kColumns) {
        const int columns = kSize - tx_first;
        const int column_first = g.source_column(at.w, tx_first);
        Accumulator sums[kColumns] = {};
        if (row_inside) {
            const Scalar* source =
                x + (long long)b * g.channels * g.source_plane() + (long long)row * g.width + column_first;
            const Scalar* channel = channel_filter + filter * g.channels * kTaps + ty * kSize + tx_first;
            const Scalar* arriving = grad_out + (long long)b * g.channels * g.out_plane() + pixel;
            for (int c = 0; c < g.channels; ++c) {
                const Accumulator gradient = widen(*arriving);
#pragma unroll
                for (int t = 0; t < kColumns; ++t) {
                    const int column = column_first + t * g.dilation;
                    if (t < columns && column >= 0 && column < g.width) {
                        const Accumulator derivative = Combine::by_spatial(Accumulator(widen(channel[t])));
                        sums[t] += derivative * gradient * widen(source[t * g.dilation]);
                    }
                }
                source += g.source_plane();
                channel += kTaps;
                arriving += g.out_plane();
            }
        }
#pragma unroll
        for (int t = 0; t < kColumns; ++t) {
            if (t < columns) store(target + (tx_first + t) * g.filter_plane(), sums[t]);
        }
    }
}

// One block: one branch, one row of taps, kReducedChannels channels, one slice of the pixels; its sums go to
// partial[slice, b, branch, c, t]. Grid: batch x slices x channel blocks x k x branches.
template <typename Scalar, typename Accumulator, typename Combine>
__device__ void grad_channel(const Scalar* __restrict__ grad_out, const Scalar* __restrict__ x,
                             const Scalar* __restrict__ spatial_filter, Accumulator* __restrict__ partial,
                             int slices, int slice_pixels, const Geometry& g) {
    constexpr int kValues = kReducedChannels * kColumns;
    __shared__ Accumulator shared[kValues * kThreads];

    int block = blockIdx.x;
    const int branch = take_digit(block, g.branches());
    const int ty = take_digit(block, kSize);
    const int first = take_digit(block, ceil_div(g.channels, kReducedChannels)) * kReducedChannels;
    const int slice = take_digit(block, slices);
    const int b = block;

    const int thread = threadIdx.x;
    const int count = g.channels - first;
    const int begin = slice * slice_pixels;
    const int end = g.filter_plane() - begin < slice_pixels ? (int)g.filter_plane() : begin + slice_pixels;
    const long long filter = (long long)b * g.branches() + branch;
    const Scalar* const source = x + ((long long)b * g.channels + first) * g.source_plane();
    const Scalar* const gradient = grad_out + ((long long)b * g.channels + first) * g.out_plane();

    for (int tx_first = 0; tx_first < kSize; tx_first += kColumns) {
        const int columns = kSize - tx_first;
        const Scalar* const spatial = spatial_filter + (filter * kTaps + ty * kSize + tx_first) * g.filter_plane();
        Accumulator sums[kReducedChannels][kColumns] = {};
        for (int pixel = begin + thread; pixel < end; pixel += kThreads) {
            const int h = pixel / g.out_width, w = pixel - h * g.out_width;
            const int row = g.source_row(h, ty), column_first = g.source_column(w, tx_first);
            if (row < 0 || row >= g.height) continue;

            const Scalar* const neighbours = source + (long long)row * g.width + column_first;
            const Scalar* const arriving = gradient + g.out_offset(h, w, branch);
            bool inside[kColumns];
            Accumulator derivative[kColumns];
#pragma unroll
            for (int t = 0; t < kColumns; ++t) {
                const int column = column_first + t * g.dilation;
                inside[t] = t < columns && column >= 0 && column < g.width;
                if (inside[t]) {
                    derivative[t] = Combine::by_channel(Accumulator(widen(spatial[t * g.filter_plane() + pixel])));
                }
            }
#pragma unroll
            for (int c = 0; c < kReducedChannels; ++c) {
                if (c >= count) break;
                const Accumulator value = widen(arriving[c * g.out_plane()]);
#pragma unroll
                for (int t = 0; t < kColumns; ++t) {
                    if (inside[t]) {
                        sums[c][t] +=
                            derivative[t] * value * widen(neighbours[c * g.source_plane() + t * g.dilation]);
                    }
                }
            }
        }

        __syncthreads();
#pragma unroll
        for (int value = 0; value < kValues; ++value) {
            shared[value * kThreads + thread] = sums[value / kColumns][value % kColumns];
        }
        for (int half = kThreads / 2; half > 0; half /= 2) {
            __syncthreads();
            for (int index = thread; index < kValues * half; index += kThreads) {
                Accumulator* const lane = shared + index / half * kThreads + index % half;
                lane[0] += lane[half];
            }
        }
        __syncthreads();
        for (int value = thread; value < kValues; value += kThreads) {
            const int c = value / kColumns, t = value % kColumns;
            if (c < count && t < columns) {
                const long long filters = (long long)g.batch * g.branches();
                const long long target = ((slice * filters + filter) * g.channels + first + c) * kTaps;
                partial[target + ty * kSize + tx_first + t] = shared[value * kThreads];
            }
        }
    }
}

// One thread: one element of the channel filter's gradient, summed over the slices in order, in double.
template <typename Scalar, typename Accumulator>
__device__ void sum_slices(const Accumulator* __restrict__ partial, Scalar* __restrict__ grad, int slices,
                           long long elements) {
    const long long element = (long long)blockIdx.x * kThreads + threadIdx.x;
    if (element >= elements) return;
    double sum = 0.0;
    for (int slice = 0; slice < slices; ++slice) sum += partial[slice * elements + element];
    store(grad + element, (Accumulator)sum);
}

}  // namespace ddf

// Asking for 4 resident blocks, 128 registers a thread, keeps ptxas from spilling a few bytes for a little occupancy.
#define DDF_KERNEL extern "C" __global__ void __launch_bounds__(DDF_THREADS, 4)

#define DDF_GEOMETRY_PARAMETERS                                                                                   \
    int batch, int channels, int height, int width, int out_height, int out_width, int dilation, int stride, int scale

#define DDF_GEOMETRY {batch, channels, height, width, out_height, out_width, dilation, stride, scale}

#define DDF_COMBINED(dtype, Scalar, Accumulator, combine, Combine)                                                \
    DDF_KERNEL ddf_forward_##combine##_##dtype(const Scalar* x, const Scalar* channel_filter,                     \
                                               const Scalar* spatial_filter, Scalar* out,                         \
                                               DDF_GEOMETRY_PARAMETERS) {                                         \
        const ddf::Geometry geometry = DDF_GEOMETRY;                                                              \
        ddf::forward<Scalar, Accumulator, ddf::Combine>(x, channel_filter, spatial_filter, out, geometry);        \
    }                                                                                                             \
    DDF_KERNEL ddf_grad_x_##combine##_##dtype(const Scalar* grad_out, const Scalar* channel_filter,               \
                                              const Scalar* spatial_filter, Scalar* grad,                         \
                                              DDF_GEOMETRY_PARAMETERS) {                                          \
        const ddf::Geometry geometry = DDF_GEOMETRY;                                                              \
        ddf::grad_x<Scalar, Accumulator, ddf::Combine>(grad_out, channel_filter, spatial_filter, grad, geometry); \
    }                                                                                                             \
    DDF_KERNEL ddf_grad_spatial_##combine##_##dtype(const Scalar* grad_out, const Scalar* x,                      \
                                                    const Scalar* channel_filter, Scalar* grad,                   \
                                                    DDF_GEOMETRY_PARAMETERS) {                                    \
        const ddf::Geometry geometry = DDF_GEOMETRY;                                                              \
        ddf::grad_spatial<Scalar, Accumulator, ddf::Combine>(grad_out, x, channel_filter, grad, geometry);        \
    }                                                                                                             \
    DDF_KERNEL ddf_grad_channel_##combine##_##dtype(const Scalar* grad_out, const Scalar* x,                      \
                                                    const Scalar* spatial_filter, Accumulator* partial,           \
                                                    int slices, int slice_pixels, DDF_GEOMETRY_PARAMETERS) {      \
        const ddf::Geometry geometry = DDF_GEOMETRY;                                                              \
        ddf::grad_channel<Scalar, Accumulator, ddf::Combine>(grad_out, x, spatial_filter, partial, slices,        \
                                                             slice_pixels, geometry);                             \
    }

#define DDF_ENTRY_POINTS(dtype, Scalar, Accumulator)                                                              \
    DDF_COMBINED(dtype, Scalar, Accumulator, mul, Product)                                                        \
    DDF_COMBINED(dtype, Scalar, Accumulator, add, Sum)                                                            \
    DDF_KERNEL ddf_sum_slices_##dtype(const Accumulator* partial, Scalar* grad, int slices, long long elements) { \
        ddf::sum_slices<Scalar, Accumulator>(partial, grad, slices, elements);                                    \
    }

#ifdef DDF_FLOAT32
DDF_ENTRY_POINTS(float32, float, float)
#endif
#ifdef DDF_FLOAT64
DDF_ENTRY_POINTS(float64, double, double)
#endif
#ifdef DDF_FLOAT16
DDF_ENTRY_POINTS(float16, __half, float)
#endif
#ifdef DDF_BFLOAT16
DDF_ENTRY_POINTS(bfloat16, __nv_bfloat16, float)
#endif

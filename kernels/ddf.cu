// Decoupled dynamic filters, forward and backward: Zhou et al., CVPR 2021, arXiv 2104.14107, section 3.2.
//
//   x               [B, C, H, W], planar or channels-last
//   channel_filter  [B, N, C, k * k]                      N = scale * scale branches, branch = i * scale + j
//   spatial_filter  [B, N, k * k, Ho, Wo], any strides    Ho = (H - 1) / stride + 1, Wo likewise
//   out             [B, C, scale * Ho, scale * Wo], in the layout of x
//
//   out[b, c, scale * h + i, scale * w + j] =
//       sum over taps t = ty * k + tx of weight(spatial_filter[b, n, t, h, w], channel_filter[b, n, c, t])
//           * x[b, c, h * stride + (ty - k / 2) * dilation, w * stride + (tx - k / 2) * dilation]
//
// `weight` is the product or the sum; x is 0 outside the image. docs/kernels-cuda.md explains the design.
//
// The launcher (cuda.py) compiles one kernel at a time and defines what it is: DDF_FORWARD, DDF_GRAD_X,
// DDF_GRAD_FILTERS or DDF_SUM_SLICES as the name of the entry point; DDF_FLOAT32, DDF_FLOAT64, DDF_FLOAT16 or
// DDF_BFLOAT16; and the constants below. Every sum has a fixed order and no atomics, so results repeat bit by bit.

#if defined(DDF_FLOAT64)
using Scalar = double;
using Accumulator = double;
#elif defined(DDF_FLOAT16)
#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif
using Scalar = __half;
using Accumulator = float;
#elif defined(DDF_BFLOAT16)
#ifdef __CUDACC__
#include <cuda_bf16.h>
#endif
using Scalar = __nv_bfloat16;
using Accumulator = float;
#else
using Scalar = float;
using Accumulator = float;
#endif

__device__ inline Accumulator widen(Scalar value) {
#if defined(DDF_FLOAT16)
    return __half2float(value);
#elif defined(DDF_BFLOAT16)
    return __bfloat162float(value);
#else
    return value;
#endif
}

__device__ inline Scalar narrow(Accumulator value) {
#if defined(DDF_FLOAT16)
    return __float2half(value);
#elif defined(DDF_BFLOAT16)
    return __float2bfloat16(value);
#else
    return value;
#endif
}

#ifndef DDF_SUM_SLICES

constexpr int kSize = DDF_KERNEL_SIZE;
constexpr int kRadius = kSize / 2;
constexpr int kTaps = kSize * kSize;
constexpr int kScale = DDF_SCALE;
constexpr bool kAdd = DDF_ADD;
constexpr bool kChannelsLast = DDF_CHANNELS_LAST;
// All tensors start at a multiple of 16 bytes.
constexpr bool kAligned = DDF_ALIGNED;
// Neighbouring pixels of one thread; more than one only where stride and dilation are 1 and they divide the width.
constexpr int kPixels = DDF_PIXELS;
// Neighbouring channels of one thread, and neighbouring threads that work on neighbouring channels of the same pixels:
// one of each unless channels-last.
constexpr int kVector = DDF_VECTOR;
constexpr int kLanes = DDF_LANES;
// Channels whose channel filters are in shared memory at a time.
constexpr int kStaged = DDF_STAGED;
constexpr int kRow = kPixels * kScale;
constexpr int kWindow = kPixels + kSize - 1;
// One channel's taps in shared memory, padded so that they are read 16 bytes at a time.
constexpr int kPaddedTaps = (kTaps + 3) / 4 * 4;
// Between the channels of two turns of a thread.
constexpr int kTurn = kLanes * kVector;

// Rows and columns are counted in 32 bits, which the launcher checks; everything larger is addressed in 64.
struct Geometry {
    int batch, channels, height, width, out_height, out_width, dilation, stride;
    int tile_width, tile_height;  // of one block, counted in threads
    long long spatial_branch, spatial_tap, spatial_pixel;  // strides of the spatial filter

    __device__ long long out_plane() const { return (long long)out_height * out_width * (kScale * kScale); }
    __device__ long long source_plane() const { return (long long)height * width; }
    __device__ long long spatial_offset(int b, int branch, int tap, long long pixel) const {
        return (long long)b * (kScale * kScale * kTaps) * out_height * out_width + branch * spatial_branch +
               tap * spatial_tap + pixel * spatial_pixel;
    }
};

#define DDF_GEOMETRY_PARAMETERS                                                                             \
    int batch, int channels, int height, int width, int out_height, int out_width, int dilation, int stride, \
        int tile_width, int tile_height, long long spatial_branch, long long spatial_tap, long long spatial_pixel

#define DDF_GEOMETRY                                                                                      \
    {                                                                                                     \
        batch, channels, height, width, out_height, out_width, dilation, stride, tile_width, tile_height, \
            spatial_branch, spatial_tap, spatial_pixel                                                    \
    }

// An image [B, C, height, width] of either layout, at one channel of one batch.
template <typename Pointer>
struct Image {
    Pointer data;
    int width, channels;

    __device__ Image(Pointer start, int b, long long plane, int width_, int channels_)
        : data(start + b * plane * channels_), width(width_), channels(channels_) {}
    __device__ Pointer row(int c, long long plane, int y) const {
        long long offset = kChannelsLast ? c + (long long)y * width * channels : c * plane + (long long)y * width;
        // Or the compiler adds all columns to all rows ahead of the loop over channels, and runs out of registers.
        if (kChannelsLast || kSize > 3) asm("" : "+l"(offset));
        return data + offset;
    }
    __device__ long long step() const { return kChannelsLast ? channels : 1; }
};

template <int kCount>
struct alignas(kCount * sizeof(Scalar)) Pack {
    Scalar values[kCount];
};

// How many of kCount values are read or written at once: at most 16 bytes, one where an address may not be aligned.
__device__ constexpr int pack_size(int count) {
    int size = 1;
    while (kAligned && count % (2 * size) == 0 && 2 * size * sizeof(Scalar) <= 16) size *= 2;
    return size;
}

template <int kCount>
__device__ inline void load(Accumulator* target, const Scalar* source, long long step) {
    constexpr int kPack = pack_size(kCount);
    if (kPack > 1 && step == 1) {
#pragma unroll
        for (int i = 0; i < kCount; i += kPack) {
            const Pack<kPack> pack = *reinterpret_cast<const Pack<kPack>*>(source + i);
#pragma unroll
            for (int p = 0; p < kPack; ++p) target[i + p] = widen(pack.values[p]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < kCount; ++i) target[i] = widen(source[i * step]);
    }
}

template <int kCount>
__device__ inline void store(Scalar* target, const Accumulator* values, long long step) {
    constexpr int kPack = pack_size(kCount);
    if (kPack > 1 && step == 1) {
#pragma unroll
        for (int i = 0; i < kCount; i += kPack) {
            Pack<kPack> pack;
#pragma unroll
            for (int p = 0; p < kPack; ++p) pack.values[p] = narrow(values[i + p]);
            *reinterpret_cast<Pack<kPack>*>(target + i) = pack;
        }
    } else {
#pragma unroll
        for (int i = 0; i < kCount; ++i) target[i * step] = narrow(values[i]);
    }
}

__device__ inline Accumulator weight(Accumulator spatial, Accumulator channel) {
    return kAdd ? spatial + channel : spatial * channel;
}

// Takes the fastest digit, of the given base, off a mixed-radix block index.
__device__ inline int take_digit(int& index, int base) {
    const int quotient = index / base, digit = index - quotient * base;
    index = quotient;
    return digit;
}

__device__ inline int ceil_div(int a, int b) { return (a - 1) / b + 1; }
__device__ inline int smaller(int a, int b) { return a < b ? a : b; }

// The pixels of one thread: kPixels neighbours from (y, x) of a plane of the given size, where `inside`.
struct Position {
    int y, x, tile;
    bool inside;

    __device__ Position(int& block, int slot, int height, int width, const Geometry& g) {
        const int columns = ceil_div(ceil_div(width, kPixels), g.tile_width);
        const int rows = ceil_div(height, g.tile_height);
        tile = take_digit(block, columns * rows);
        const int row = slot / g.tile_width;
        y = tile / columns * g.tile_height + row;
        x = (tile % columns * g.tile_width + slot % g.tile_width) * kPixels;
        inside = row < g.tile_height && y < height && x < width;
    }
};

// The columns that a thread's pixels read, in order: one for each of kWindow places, -1 outside the image.
struct Columns {
    int first;
    int at[kWindow];

    // With `scattered`, x is an input pixel and the columns are those of the outputs that read it.
    __device__ Columns(int x, bool scattered, int width, const Geometry& g) {
        const int dilation = kPixels > 1 ? 1 : g.dilation, stride = kPixels > 1 ? 1 : g.stride;
#pragma unroll
        for (int n = 0; n < kWindow; ++n) at[n] = place(x, n, dilation, stride, scattered, width);
        first = x;
    }
    __device__ static int place(int x, int n, int dilation, int stride, bool scattered, int size) {
        int column = (scattered ? x : x * stride) + (n - kRadius) * dilation;
        if (scattered && stride > 1) column = column >= 0 && column % stride == 0 ? column / stride : -1;
        return column < size ? (column < 0 ? -1 : column) : -1;
    }
};

// Reads `kCount` neighbouring pixels of all channels of a thread, channels fastest.
template <int kCount>
__device__ inline void load_pixels(Accumulator* target, const Scalar* source, long long step) {
    if (kChannelsLast) {
#pragma unroll
        for (int j = 0; j < kCount; ++j) load<kVector>(target + j * kVector, source + j * step, 1);
    } else {
        load<kCount>(target, source, 1);
    }
}

template <int kCount>
__device__ inline void store_pixels(Scalar* target, const Accumulator* values, long long step) {
    if (kChannelsLast) {
#pragma unroll
        for (int j = 0; j < kCount; ++j) store<kVector>(target + j * step, values + j * kVector, 1);
    } else {
        store<kCount>(target, values, 1);
    }
}

// Reads kCount pixels for every place of the window; 0 outside the image.
template <int kCount>
__device__ inline void load_window(Accumulator* target, const Scalar* row, const Columns& columns, long long step) {
#pragma unroll
    for (int n = 0; n < kWindow; ++n) {
        Accumulator* const values = target + n * kCount * kVector;
        if (kPixels > 1 && n == kRadius) {
            load<kPixels * kCount>(values, row + (long long)columns.first * kCount, 1);
        } else if (kPixels == 1 || n < kRadius || n >= kRadius + kPixels) {
            // From the first column on, so that the offsets of neighbours are constants.
            const int column = kPixels > 1 ? columns.first + n - kRadius : columns.at[n];
            if (columns.at[n] >= 0) {
                load_pixels<kCount>(values, row + (long long)column * kCount * step, step);
            } else {
#pragma unroll
                for (int j = 0; j < kCount * kVector; ++j) values[j] = 0;
            }
        }
    }
}

// Channel filters in shared memory, so that what one thread reads at once, or a warp does, lies together: the taps of a
// channel where all threads work on the same one, else the channels of a tap.
template <int kBranches>
struct Staged {
    Accumulator values[kBranches * kStaged * kPaddedTaps];

    __device__ Accumulator& at(int branch, int channel, int tap) {
        const int place = kChannelsLast ? tap * kStaged + channel : channel * kPaddedTaps + tap;
        return values[branch * (kStaged * kPaddedTaps) + place];
    }
    // Copies the taps of `count` channels from `first` on, for kBranches branches from `branch` on.
    __device__ void fill(const Scalar* channel_filter, int b, int branch, int first, int count, int channels) {
        for (int n = 0; n < kBranches; ++n) {
            const long long filter = (long long)b * (kScale * kScale) + branch + n;
            const Scalar* const source = channel_filter + (filter * channels + first) * kTaps;
            for (int i = threadIdx.x; i < count * kTaps; i += blockDim.x) at(n, i / kTaps, i % kTaps) = widen(source[i]);
        }
        __syncthreads();
    }
};

#endif

#ifdef DDF_FORWARD

// Whether all spatial filters of a thread fit into registers; else they are read again for every few channels.
constexpr bool kHeld = kTaps * kRow <= DDF_HELD;
constexpr int kTogether = kHeld || sizeof(Accumulator) > 4 ? 1 : 4;

__device__ inline void load_spatial(Accumulator (&spatial)[kSize][kRow], const Scalar* spatial_filter, int b, int i,
                                    int ty, const Position& at, const Geometry& g) {
#pragma unroll
    for (int tx = 0; tx < kSize; ++tx) {
#pragma unroll
        for (int j = 0; j < kScale; ++j) {
            Accumulator values[kPixels];
            const long long pixel = (long long)at.y * g.out_width + at.x;
            load<kPixels>(values, spatial_filter + g.spatial_offset(b, i * kScale + j, ty * kSize + tx, pixel),
                          g.spatial_pixel);
#pragma unroll
            for (int v = 0; v < kPixels; ++v) spatial[tx][v * kScale + j] = values[v];
        }
    }
}

// One thread: kPixels pixels of one row i of sub-pixels, the block's channels one after the other.
// Grid: batch x tiles x channel blocks x rows of sub-pixels.
extern "C" __global__ void __launch_bounds__(DDF_THREADS, DDF_BLOCKS)
    DDF_FORWARD(const Scalar* __restrict__ x, const Scalar* __restrict__ channel_filter,
                const Scalar* __restrict__ spatial_filter, Scalar* __restrict__ out, int block_channels,
                DDF_GEOMETRY_PARAMETERS) {
    alignas(16) __shared__ Staged<kScale> staged;
    const Geometry g = DDF_GEOMETRY;
    int block = blockIdx.x;
    const int i = take_digit(block, kScale);
    const int first = take_digit(block, ceil_div(channels, block_channels)) * block_channels;
    const Position at(block, threadIdx.x / kLanes, out_height, out_width, g);
    const int b = block, count = smaller(block_channels, channels - first);

    staged.fill(channel_filter, b, i * kScale, first, count, channels);
    if (!at.inside) return;

    const Image<const Scalar*> source(x, b, g.source_plane(), width, channels);
    const Image<Scalar*> target(out, b, g.out_plane(), out_width * kScale, channels);
    const Columns columns(at.x, false, width, g);
    Accumulator spatial[kHeld ? kSize : 1][kSize][kRow];
    if (kHeld) {
#pragma unroll
        for (int ty = 0; ty < kSize; ++ty) load_spatial(spatial[kHeld ? ty : 0], spatial_filter, b, i, ty, at, g);
    }

    for (int c = threadIdx.x % kLanes * kVector; c < count; c += kTogether * kTurn) {
        Accumulator sums[kTogether][kRow * kVector] = {};
#pragma unroll(kHeld ? kSize : 1)
        for (int ty = 0; ty < kSize; ++ty) {
            const int y = at.y * stride + (ty - kRadius) * dilation;
            if (y < 0 || y >= height) continue;
            if (!kHeld) load_spatial(spatial[0], spatial_filter, b, i, ty, at, g);
#pragma unroll
            for (int q = 0; q < kTogether; ++q) {
                const int channel = c + q * kTurn;
                if (channel >= count) break;
                Accumulator window[kWindow * kVector];
                load_window<1>(window, source.row(first + channel, g.source_plane(), y), columns, source.step());
#pragma unroll
                for (int tx = 0; tx < kSize; ++tx) {
#pragma unroll
                    for (int v = 0; v < kRow * kVector; ++v) {
                        const int pixel = v / kVector, place = pixel / kScale + tx, u = v % kVector;
                        const Accumulator by_channel = staged.at(pixel % kScale, channel + u, ty * kSize + tx);
                        sums[q][v] +=
                            weight(spatial[kHeld ? ty : 0][tx][pixel], by_channel) * window[place * kVector + u];
                    }
                }
            }
        }
#pragma unroll
        for (int q = 0; q < kTogether; ++q) {
            const int channel = c + q * kTurn;
            if (channel >= count) break;
            Scalar* const row = target.row(first + channel, g.out_plane(), at.y * kScale + i);
            store_pixels<kRow>(row + (long long)at.x * kScale * target.step(), sums[q], target.step());
        }
    }
}

#endif

#ifdef DDF_GRAD_X

constexpr bool kHeld = kTaps * kScale * kRow <= DDF_HELD;
constexpr int kTogether = kHeld || sizeof(Accumulator) > 4 ? 1 : 4;

// The row of outputs that read row y through the taps of row ty; -1 if there is none.
__device__ inline int row_of(int y, int ty, const Geometry& g) {
    return Columns::place(y, kSize - 1 - ty, kPixels > 1 ? 1 : g.dilation, kPixels > 1 ? 1 : g.stride, true,
                          g.out_height);
}

// The spatial filters by which outputs of row y read this thread's pixels, at the window's places.
__device__ inline void load_spatial(Accumulator (&spatial)[kSize][kRow], const Scalar* spatial_filter, int b, int i,
                                    int ty, int y, const Columns& columns, const Geometry& g) {
#pragma unroll
    for (int tx = 0; tx < kSize; ++tx) {
#pragma unroll
        for (int v = 0; v < kRow; ++v) {
            const int column = columns.at[v / kScale + kSize - 1 - tx];
            const long long pixel = (long long)y * g.out_width + column;
            const long long offset = g.spatial_offset(b, i * kScale + v % kScale, ty * kSize + tx, pixel);
            spatial[tx][v] = y >= 0 && column >= 0 ? widen(spatial_filter[offset]) : Accumulator(0);
        }
    }
}

// One thread: kPixels input pixels, gathered from every output that read them, the block's channels one after the
// other. Grid: batch x tiles x channel blocks.
extern "C" __global__ void __launch_bounds__(DDF_THREADS, DDF_BLOCKS)
    DDF_GRAD_X(const Scalar* __restrict__ grad_out, const Scalar* __restrict__ channel_filter,
               const Scalar* __restrict__ spatial_filter, Scalar* __restrict__ grad_x, int block_channels,
               DDF_GEOMETRY_PARAMETERS) {
    alignas(16) __shared__ Staged<kScale * kScale> staged;
    const Geometry g = DDF_GEOMETRY;
    int block = blockIdx.x;
    const int first = take_digit(block, ceil_div(channels, block_channels)) * block_channels;
    const Position at(block, threadIdx.x / kLanes, height, width, g);
    const int b = block, count = smaller(block_channels, channels - first);

    staged.fill(channel_filter, b, 0, first, count, channels);
    if (!at.inside) return;

    const Image<const Scalar*> source(grad_out, b, g.out_plane(), out_width * kScale, channels);
    const Image<Scalar*> target(grad_x, b, g.source_plane(), width, channels);
    const Columns columns(at.x, true, out_width, g);
    constexpr int kLines = kSize * kScale;
    Accumulator spatial[kHeld ? kLines : 1][kSize][kRow];
    if (kHeld) {
#pragma unroll
        for (int line = 0; line < kLines; ++line) {
            const int ty = line / kScale, y = row_of(at.y, ty, g);
            load_spatial(spatial[kHeld ? line : 0], spatial_filter, b, line % kScale, ty, y, columns, g);
        }
    }

    for (int c = threadIdx.x % kLanes * kVector; c < count; c += kTogether * kTurn) {
        Accumulator sums[kTogether][kPixels * kVector] = {};
#pragma unroll(kHeld ? kLines : 1)
        for (int line = 0; line < kLines; ++line) {
            const int ty = line / kScale, i = line % kScale, y = row_of(at.y, ty, g);
            if (y < 0) continue;
            if (!kHeld) load_spatial(spatial[0], spatial_filter, b, i, ty, y, columns, g);
#pragma unroll
            for (int q = 0; q < kTogether; ++q) {
                const int channel = c + q * kTurn;
                if (channel >= count) break;
                Accumulator window[kWindow * kScale * kVector];
                load_window<kScale>(window, source.row(first + channel, g.out_plane(), y * kScale + i), columns,
                                    source.step());
#pragma unroll
                for (int tx = 0; tx < kSize; ++tx) {
#pragma unroll
                    for (int v = 0; v < kRow * kVector; ++v) {
                        const int pixel = v / kVector, u = v % kVector, branch = i * kScale + pixel % kScale;
                        const Accumulator by_channel = staged.at(branch, channel + u, ty * kSize + tx);
                        sums[q][pixel / kScale * kVector + u] +=
                            weight(spatial[kHeld ? line : 0][tx][pixel], by_channel) *
                            window[v + (kSize - 1 - tx) * kScale * kVector];
                    }
                }
            }
        }
#pragma unroll
        for (int q = 0; q < kTogether; ++q) {
            const int channel = c + q * kTurn;
            if (channel >= count) break;
            Scalar* const row = target.row(first + channel, g.source_plane(), at.y);
            store_pixels<kPixels>(row + (long long)at.x * target.step(), sums[q], target.step());
        }
    }
}

#endif

#ifdef DDF_GRAD_FILTERS

constexpr int kTapRows = DDF_TAP_ROWS;  // rows of taps that a block has threads for: all of them, or one
constexpr int kValues = kSize * kScale;  // gradients of one channel's filters that a thread adds to
constexpr int kWarps = DDF_THREADS / kTapRows / 32;

// The values, of those that the lanes of a warp sum together, whose totals one lane is to have.
struct Share {
    int first, count;
};

// Sums kCount values over the lanes of a warp. Every step halves the values of a lane: one half stays, the other goes to
// the lane that keeps that. Afterwards values[v] is the total of value share.first + v.
template <int kCount, int kOffset>
__device__ inline void sum_pixels(Accumulator* values, int lane, Share& share) {
    if constexpr (kOffset > 0) {
        constexpr int kHalf = (kCount + 1) / 2;
        const bool upper = lane & kOffset;
#pragma unroll
        for (int i = 0; i < kHalf; ++i) {
            const int other = i + kHalf < kCount ? i + kHalf : i;
            const Accumulator kept = upper ? values[other] : values[i];
            const Accumulator sent = upper ? values[i] : values[other];
            values[i] = kept + __shfl_xor_sync(0xffffffffu, sent, kOffset);
        }
        if (upper) share.first += kHalf;
        share.count = upper ? share.count - kHalf : smaller(share.count, kHalf);
        sum_pixels<kHalf, kOffset / 2>(values, lane, share);
    }
}

__device__ constexpr int values_left(int count) {
    for (int offset = 16; offset > 0; offset /= 2) count = (count + 1) / 2;
    return count;
}
constexpr int kLeft = values_left(kValues);

// Planar images only.
// One thread: one row of taps at kPixels pixels of one row i of sub-pixels, the channels of a slice one after the
// other. The spatial gradients are summed in registers; the channel gradients over the block, into
// partial_channel[tile, b, branch, c, t]. Of several slices, each writes its own partial_spatial[slice], laid out as
// the spatial filter. Grid: batch x tiles x slices x rows of taps that a block has no threads for x rows of sub-pixels.
extern "C" __global__ void __launch_bounds__(DDF_THREADS, DDF_BLOCKS)
    DDF_GRAD_FILTERS(const Scalar* __restrict__ grad_out, const Scalar* __restrict__ x,
                     const Scalar* __restrict__ channel_filter, const Scalar* __restrict__ spatial_filter,
                     Scalar* __restrict__ grad_spatial, Accumulator* __restrict__ partial_spatial,
                     Accumulator* __restrict__ partial_channel, int slices, int slice_channels,
                     DDF_GEOMETRY_PARAMETERS) {
    static_assert(!kChannelsLast && kTurn == 1);
    alignas(16) __shared__ Staged<kScale> staged;
    __shared__ Accumulator totals[kStaged][kTapRows][kValues][kWarps];
    const Geometry g = DDF_GEOMETRY;
    const int group = blockDim.x / kTapRows;
    const int tap_row = threadIdx.x / group, lane = threadIdx.x % group;
    int block = blockIdx.x;
    const int i = take_digit(block, kScale);
    const int ty = kTapRows > 1 ? tap_row : take_digit(block, kSize);
    const int slice = take_digit(block, slices);
    const Position at(block, lane, out_height, out_width, g);
    const int b = block;

    const Image<const Scalar*> source(x, b, g.source_plane(), width, channels);
    const Image<const Scalar*> arriving(grad_out, b, g.out_plane(), out_width * kScale, channels);
    const Columns columns(at.x, false, width, g);
    const int y = at.y * stride + (ty - kRadius) * dilation;
    const bool reads = at.inside && y >= 0 && y < height;
    const long long pixel = (long long)at.y * out_width + at.x;

    Accumulator spatial[kSize][kRow] = {}, by_spatial[kSize][kRow] = {};
#pragma unroll
    for (int tx = 0; tx < kSize; ++tx) {
#pragma unroll
        for (int j = 0; j < kScale && reads; ++j) {
            Accumulator values[kPixels];
            load<kPixels>(values, spatial_filter + g.spatial_offset(b, i * kScale + j, ty * kSize + tx, pixel),
                          spatial_pixel);
#pragma unroll
            for (int v = 0; v < kPixels; ++v) spatial[tx][v * kScale + j] = values[v];
        }
    }

    // Each channel is read while the one before it is summed.
    const int last = smaller((slice + 1) * slice_channels, channels);
    Accumulator window[kWindow] = {}, gradient[kRow] = {};
    Accumulator next_window[kWindow] = {}, next_gradient[kRow] = {};
    auto read_next = [&](int channel) {
        if (!reads || channel >= last) return;
        load_window<1>(next_window, source.row(channel, g.source_plane(), y), columns, 1);
        const Scalar* const row = arriving.row(channel, g.out_plane(), at.y * kScale + i);
        load<kRow>(next_gradient, row + (long long)at.x * kScale, 1);
    };
    read_next(slice * slice_channels);

    for (int first = slice * slice_channels; first < last; first += kStaged) {
        const int count = smaller(kStaged, last - first);
        staged.fill(channel_filter, b, i * kScale, first, count, channels);
        for (int c = 0; c < count; ++c) {
#pragma unroll
            for (int n = 0; n < kWindow; ++n) window[n] = next_window[n];
#pragma unroll
            for (int v = 0; v < kRow; ++v) gradient[v] = next_gradient[v];
            read_next(first + c + 1);
            Accumulator by_channel[kValues] = {};
            if (reads) {
#pragma unroll
                for (int tx = 0; tx < kSize; ++tx) {
#pragma unroll
                    for (int v = 0; v < kRow; ++v) {
                        const int j = v % kScale;
                        const Accumulator product = gradient[v] * window[v / kScale + tx];
                        const Accumulator channel = kAdd ? 1 : staged.at(j, c, ty * kSize + tx);
                        by_spatial[tx][v] += channel * product;
                        by_channel[tx * kScale + j] += (kAdd ? 1 : spatial[tx][v]) * product;
                    }
                }
            }
            Share share = {0, kValues};
            sum_pixels<kValues, 16>(by_channel, lane, share);
#pragma unroll
            for (int v = 0; v < kLeft; ++v) {
                if (v < share.count) totals[c][tap_row][share.first + v][lane / 32] = by_channel[v];
            }
        }
        __syncthreads();
        for (int index = threadIdx.x; index < count * kTapRows * kValues; index += blockDim.x) {
            int rest = index;
            const int t = take_digit(rest, kSize), row = take_digit(rest, kTapRows), j = take_digit(rest, kScale);
            Accumulator sum = 0;
            for (int warp = 0; warp < group / 32; ++warp) sum += totals[rest][row][t * kScale + j][warp];
            const long long filter = ((long long)at.tile * batch + b) * (kScale * kScale) + i * kScale + j;
            const int tap = (kTapRows > 1 ? row : ty) * kSize + t;
            partial_channel[(filter * channels + first + rest) * kTaps + tap] = sum;
        }
        __syncthreads();
    }

    const long long elements = (long long)batch * (kScale * kScale * kTaps) * out_height * out_width;
#pragma unroll
    for (int tx = 0; tx < kSize; ++tx) {
#pragma unroll
        for (int j = 0; j < kScale; ++j) {
            Accumulator values[kPixels];
#pragma unroll
            for (int v = 0; v < kPixels; ++v) values[v] = by_spatial[tx][v * kScale + j];
            if (!at.inside) continue;
            const long long offset = g.spatial_offset(b, i * kScale + j, ty * kSize + tx, pixel);
            if (slices == 1) {
                store<kPixels>(grad_spatial + offset, values, spatial_pixel);
            } else {
                for (int v = 0; v < kPixels; ++v) partial_spatial[slice * elements + offset + v * spatial_pixel] = values[v];
            }
        }
    }
}

#endif

#ifdef DDF_SUM_SLICES

// One thread: one element, summed over the slices of partial[slices, elements] in order, in double.
extern "C" __global__ void __launch_bounds__(DDF_THREADS)
    DDF_SUM_SLICES(const Accumulator* __restrict__ partial, Scalar* __restrict__ grad, int slices, long long elements) {
    const long long element = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (element >= elements) return;
    double sum = 0.0;
#pragma unroll 8
    for (int slice = 0; slice < slices; ++slice) sum += partial[slice * elements + element];
    grad[element] = narrow((Accumulator)sum);
}

#endif

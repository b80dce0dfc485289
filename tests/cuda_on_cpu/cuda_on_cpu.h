// Lets g++ compile a CUDA source and run its kernels on the CPU: one std::thread per CUDA thread of a block, blocks one
// after the other. It tests indexing, borders and arithmetic; not races between blocks, and not warps.
#pragma once

#include <barrier>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

inline thread_local dim3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

#define __global__
#define __device__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static

namespace cuda_on_cpu {

inline std::optional<std::barrier<>> meeting;

// Calls kernel(arguments...) for every thread of the grid; false where an argument has not the size that the kernel reads.
template <typename... Parameters>
bool run(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, void** arguments, const std::size_t* sizes,
         std::size_t count) {
    const std::size_t expected[] = {sizeof(Parameters)...};
    if (count != sizeof...(Parameters)) return false;
    for (std::size_t i = 0; i < count; ++i) {
        if (sizes[i] != expected[i]) return false;
    }
    gridDim.x = blocks;
    blockDim.x = threads;
    meeting.emplace(threads);
    auto one_thread = [&](unsigned thread) {
        threadIdx.x = thread;
        for (unsigned block = 0; block < blocks; ++block) {
            blockIdx.x = block;
            [&]<std::size_t... i>(std::index_sequence<i...>) {
                kernel(*static_cast<Parameters*>(arguments[i])...);
            }(std::index_sequence_for<Parameters...>());
            meeting->arrive_and_wait();  // the next block reuses this one's shared memory
        }
    };
    std::vector<std::jthread> team;
    for (unsigned thread = 0; thread < threads; ++thread) team.emplace_back(one_thread, thread);
    team.clear();
    return true;
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::meeting->arrive_and_wait(); }

// Makes a kernel callable from outside under its own name with `run_` before it.
#define CUDA_ON_CPU_EXPORT(kernel)                                                                     \
    extern "C" __attribute__((visibility("default"))) bool run_##kernel(                               \
        unsigned blocks, unsigned threads, void** arguments, const std::size_t* sizes, std::size_t count) { \
        return cuda_on_cpu::run(kernel, blocks, threads, arguments, sizes, count);                     \
    }

struct __half {
    _Float16 value;
};
inline float __half2float(__half half) { return half.value; }
inline __half __float2half(float value) { return {static_cast<_Float16>(value)}; }

struct __nv_bfloat16 {
    std::uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 value) { return std::bit_cast<float>(std::uint32_t{value.bits} << 16); }
inline __nv_bfloat16 __float2bfloat16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (value != value) return {0x7fff};
    return {static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};  // to nearest, ties to even
}

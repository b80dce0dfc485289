// Lets g++ compile a CUDA source and run its kernels on the CPU: the threads of a block take turns, each until it must
// wait for the others; blocks run one after the other. It tests indexing, borders, barriers that not all threads reach
// and arithmetic; not races between blocks or threads.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <ucontext.h>

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static

namespace cuda_on_cpu {

constexpr unsigned kMostThreads = 1024;
constexpr std::size_t kStackBytes = 64 << 10;

// Threads that wait for each other: those of a block, or of a warp.
struct Meeting {
    unsigned arrived, round;
};

struct Thread {
    ucontext_t context;
    bool finished;
};

inline Thread threads[kMostThreads];
inline ucontext_t scheduler;
inline Meeting block_meeting, warp_meetings[kMostThreads / 32];
inline std::uint64_t exchanged[kMostThreads];
inline void (*body)(void*);
inline void* body_arguments;

inline void meet(Meeting& meeting, unsigned count) {
    const unsigned round = meeting.round;
    if (++meeting.arrived == count) {
        meeting.arrived = 0;
        ++meeting.round;
        return;
    }
    const unsigned thread = threadIdx.x;
    while (meeting.round == round) swapcontext(&threads[thread].context, &scheduler);
}

inline void run_thread() {
    const unsigned thread = threadIdx.x;
    body(body_arguments);
    threads[thread].finished = true;
}

// False where threads wait for others that have finished.
inline bool run_block(char* stacks) {
    block_meeting = {};
    for (Meeting& meeting : warp_meetings) meeting = {};
    for (unsigned thread = 0; thread < blockDim.x; ++thread) {
        Thread& one = threads[thread];
        one.finished = false;
        getcontext(&one.context);
        one.context.uc_stack.ss_sp = stacks + thread * kStackBytes;
        one.context.uc_stack.ss_size = kStackBytes;
        one.context.uc_link = &scheduler;
        makecontext(&one.context, run_thread, 0);
    }
    // Between two meetings of a block a warp may meet many times, but every turn takes all warps on.
    unsigned unfinished = blockDim.x;
    for (unsigned turn = 0; unfinished > 0; ++turn) {
        if (turn == 1u << 20) return false;
        unfinished = 0;
        for (unsigned thread = 0; thread < blockDim.x; ++thread) {
            if (threads[thread].finished) continue;
            threadIdx.x = thread;
            swapcontext(&scheduler, &threads[thread].context);
            unfinished += !threads[thread].finished;
        }
    }
    return block_meeting.arrived == 0;
}

template <typename... Parameters>
struct Call {
    void (*kernel)(Parameters...);
    void** arguments;

    static void run(void* call) { static_cast<Call*>(call)->each(std::make_index_sequence<sizeof...(Parameters)>()); }
    template <std::size_t... i>
    void each(std::index_sequence<i...>) {
        kernel(*static_cast<Parameters*>(arguments[i])...);
    }
};

// Calls kernel(arguments...) for every thread of the grid. Returns what went wrong, or null.
template <typename... Parameters>
const char* run(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, void** arguments,
                const std::size_t* sizes, std::size_t count) {
    const std::size_t expected[] = {sizeof(Parameters)...};
    if (count != sizeof...(Parameters)) return "the packed arguments do not fit its parameters";
    for (std::size_t i = 0; i < count; ++i) {
        if (sizes[i] != expected[i]) return "the packed arguments do not fit its parameters";
    }
    if (threads > kMostThreads || threads % 32 != 0) return "no such block of threads";
    static char* const stacks = static_cast<char*>(std::malloc(kMostThreads * kStackBytes));
    static Call<Parameters...> call;
    call = {kernel, arguments};
    body = Call<Parameters...>::run;
    body_arguments = &call;
    gridDim.x = blocks;
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
        if (!run_block(stacks)) return "threads wait for others that never come";
    }
    return nullptr;
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::meet(cuda_on_cpu::block_meeting, blockDim.x); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    const unsigned thread = threadIdx.x;
    cuda_on_cpu::Meeting& warp = cuda_on_cpu::warp_meetings[thread / 32];
    std::memcpy(&cuda_on_cpu::exchanged[thread], &value, sizeof(T));
    cuda_on_cpu::meet(warp, 32);
    T other;
    std::memcpy(&other, &cuda_on_cpu::exchanged[thread ^ mask], sizeof(T));
    cuda_on_cpu::meet(warp, 32);
    return other;
}

// Makes space::kernel callable from outside under its own name with `run_` before it.
#define CUDA_ON_CPU_EXPORT(space, kernel)                                                                   \
    extern "C" __attribute__((visibility("default"))) const char* run_##kernel(                             \
        unsigned blocks, unsigned threads, void** arguments, const std::size_t* sizes, std::size_t count) { \
        return cuda_on_cpu::run(space::kernel, blocks, threads, arguments, sizes, count);                   \
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

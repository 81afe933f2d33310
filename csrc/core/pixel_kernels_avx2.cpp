// The variant for x86-64 CPUs with AVX2 and F16C: half a line in a register.
#if defined(__x86_64__)

#include <immintrin.h>

#include <bit>

#include "fits_sum.hpp"
#include "pixel_kernels_detail.hpp"

#define VAMPIRES_AVX2 __attribute__((target("avx2,f16c")))

namespace vampires::detail {
namespace {

constexpr std::size_t kVectorBytes = sizeof(__m256i);

// How far ahead of its use the source is fetched: the hardware's own fetching stops at page
// boundaries.
constexpr std::size_t kPrefetchBytes = 1024;

// Pixels that keep their size: kVectorBytes of source make a vector.
template <std::size_t kBytes, bool kFlip>
struct SamePixels {
    static constexpr std::size_t kPixelBytes = kBytes;
    static constexpr std::size_t kSourceBytes = kVectorBytes;

    VAMPIRES_AVX2 static __m256i load(const std::byte* src) noexcept {
        const __m256i pixels = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src));
        if constexpr (kFlip) {
            constexpr auto kFlipBits = static_cast<long long>(top_bits(kPixelBytes));
            return _mm256_xor_si256(pixels, _mm256_set1_epi64x(kFlipBits));
        } else {
            return pixels;
        }
    }
};

// 16-bit floats, widened.
struct HalfPixels {
    static constexpr std::size_t kPixelBytes = 4;
    static constexpr std::size_t kSourceBytes = kVectorBytes / 2;

    VAMPIRES_AVX2 static __m256i load(const std::byte* src) noexcept {
        const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src));
        return _mm256_castps_si256(_mm256_cvtph_ps(halves));
    }
};

// The bytes of each kBytes in reverse order.
template <std::size_t kBytes>
VAMPIRES_AVX2 __m256i reverse_bytes(__m256i vector) noexcept {
    if constexpr (kBytes == 1) {
        return vector;
    } else {
        // Byte i of sixteen comes from byte i ^ (kBytes - 1).
        constexpr long long kReverse = 0x0101010101010101 * (kBytes - 1);
        const __m128i indices = _mm_set_epi64x(0x0F0E0D0C0B0A0908 ^ kReverse,  //
                                               0x0706050403020100 ^ kReverse);
        return _mm256_shuffle_epi8(vector, _mm256_broadcastsi128_si256(indices));
    }
}

template <bool kStream>
VAMPIRES_AVX2 void store(std::byte* dst, __m256i vector) noexcept {
    if constexpr (kStream) {
        _mm256_stream_si256(reinterpret_cast<__m256i*>(dst), vector);
    } else {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), vector);
    }
}

// Adds up 32-bit words in 64-bit lanes, which hold 2^32 of them.
class WordSum {
  public:
    VAMPIRES_AVX2 void add(__m256i words) noexcept {
        even_ =
            _mm256_add_epi64(even_, _mm256_and_si256(words, _mm256_set1_epi64x(0xFFFFFFFF)));
        odd_ = _mm256_add_epi64(odd_, _mm256_srli_epi64(words, 32));
    }

    VAMPIRES_AVX2 std::uint32_t total() const noexcept {
        alignas(kVectorBytes) std::uint64_t lanes[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), even_);
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes + 4), odd_);
        std::uint32_t sum = 0;
        for (const std::uint64_t lane : lanes) {
            sum = sum_add(sum, fold_carries(lane));
        }
        return sum;
    }

  private:
    __m256i even_ = {};
    __m256i odd_ = {};
};

template <class Pixels, bool kStream>
VAMPIRES_AVX2 std::uint32_t convert_lines(const std::byte* src, std::byte* dst,
                                          std::size_t n_lines) noexcept {
    constexpr std::size_t kBytes = Pixels::kPixelBytes;
    WordSum sum;
    for (std::size_t line = 0; line < n_lines; ++line) {
        _mm_prefetch(reinterpret_cast<const char*>(src) + kPrefetchBytes, _MM_HINT_T0);
        for (std::size_t at = 0; at < kLineBytes; at += kVectorBytes) {
            const __m256i pixels = Pixels::load(src);
            store<kStream>(dst + at, reverse_bytes<kBytes>(pixels));
            sum.add(kBytes == 1 ? reverse_bytes<4>(pixels) : pixels);
            src += Pixels::kSourceBytes;
        }
        dst += kLineBytes;
    }
    if constexpr (kStream) {
        _mm_sfence();
    }
    // Two native 16-bit pixels are a file word with its halves exchanged.
    return kBytes == 2 ? std::rotl(sum.total(), 16) : sum.total();
}

template <class Pixels>
constexpr LineKernels kKernels = {convert_lines<Pixels, false>, convert_lines<Pixels, true>};

struct Avx2Kernels {
    template <std::size_t kPixelBytes, bool kFlip>
    static LineKernels swap() noexcept {
        return kKernels<SamePixels<kPixelBytes, kFlip>>;
    }
    static LineKernels half() noexcept { return kKernels<HalfPixels>; }
};

}  // namespace

LineKernels avx2_kernels(PixelType type) noexcept {
    return select_kernel<Avx2Kernels>(type);
}

}  // namespace vampires::detail

#endif

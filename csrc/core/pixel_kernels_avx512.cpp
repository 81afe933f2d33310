// The variant for x86-64 CPUs with AVX-512 F and BW: a line in a register.
#if defined(__x86_64__)

// The header leaves the unused input of unmasked operations uninitialized, which GCC 12 warns
// of wherever they are used (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <bit>

#include "fits_sum.hpp"
#include "pixel_kernels_detail.hpp"

#define VAMPIRES_AVX512 __attribute__((target("avx512f,avx512bw")))

namespace vampires::detail {
namespace {

constexpr std::size_t kVectorBytes = sizeof(__m512i);

// How far ahead of its use the source is fetched: the hardware's own fetching stops at page
// boundaries.
constexpr std::size_t kPrefetchBytes = 1024;

// Pixels that keep their size: kVectorBytes of source make a vector.
template <std::size_t kBytes, bool kFlip>
struct SamePixels {
    static constexpr std::size_t kPixelBytes = kBytes;
    static constexpr std::size_t kSourceBytes = kVectorBytes;

    VAMPIRES_AVX512 static __m512i load(const std::byte* src) noexcept {
        const __m512i pixels = _mm512_loadu_si512(reinterpret_cast<const __m512i*>(src));
        if constexpr (kFlip) {
            constexpr auto kFlipBits = static_cast<long long>(top_bits(kPixelBytes));
            return _mm512_xor_si512(pixels, _mm512_set1_epi64(kFlipBits));
        } else {
            return pixels;
        }
    }
};

// 16-bit floats, widened.
struct HalfPixels {
    static constexpr std::size_t kPixelBytes = 4;
    static constexpr std::size_t kSourceBytes = kVectorBytes / 2;

    VAMPIRES_AVX512 static __m512i load(const std::byte* src) noexcept {
        const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src));
        return _mm512_castps_si512(_mm512_cvtph_ps(halves));
    }
};

// The bytes of each kBytes in reverse order.
template <std::size_t kBytes>
VAMPIRES_AVX512 __m512i reverse_bytes(__m512i vector) noexcept {
    if constexpr (kBytes == 1) {
        return vector;
    } else {
        // Byte i of sixteen comes from byte i ^ (kBytes - 1).
        constexpr long long kReverse = 0x0101010101010101 * (kBytes - 1);
        const __m128i indices = _mm_set_epi64x(0x0F0E0D0C0B0A0908 ^ kReverse,  //
                                               0x0706050403020100 ^ kReverse);
        return _mm512_shuffle_epi8(vector, _mm512_broadcast_i32x4(indices));
    }
}

template <bool kStream>
VAMPIRES_AVX512 void store(std::byte* dst, __m512i vector) noexcept {
    if constexpr (kStream) {
        _mm512_stream_si512(reinterpret_cast<__m512i*>(dst), vector);
    } else {
        _mm512_storeu_si512(reinterpret_cast<__m512i*>(dst), vector);
    }
}

// Adds up 32-bit words in 64-bit lanes, which hold 2^32 of them.
class WordSum {
  public:
    VAMPIRES_AVX512 void add(__m512i words) noexcept {
        even_ = _mm512_add_epi64(even_, _mm512_and_si512(words, _mm512_set1_epi64(0xFFFFFFFF)));
        odd_ = _mm512_add_epi64(odd_, _mm512_srli_epi64(words, 32));
    }

    VAMPIRES_AVX512 std::uint32_t total() const noexcept {
        alignas(kVectorBytes) std::uint64_t lanes[16];
        _mm512_store_si512(reinterpret_cast<__m512i*>(lanes), even_);
        _mm512_store_si512(reinterpret_cast<__m512i*>(lanes + 8), odd_);
        std::uint32_t sum = 0;
        for (const std::uint64_t lane : lanes) {
            sum = sum_add(sum, fold_carries(lane));
        }
        return sum;
    }

  private:
    __m512i even_ = {};
    __m512i odd_ = {};
};

template <class Pixels, bool kStream>
VAMPIRES_AVX512 std::uint32_t convert_lines(const std::byte* src, std::byte* dst,
                                            std::size_t n_lines) noexcept {
    constexpr std::size_t kBytes = Pixels::kPixelBytes;
    WordSum sum;
    for (std::size_t line = 0; line < n_lines; ++line) {
        _mm_prefetch(reinterpret_cast<const char*>(src) + kPrefetchBytes, _MM_HINT_T0);
        for (std::size_t at = 0; at < kLineBytes; at += kVectorBytes) {
            const __m512i pixels = Pixels::load(src);
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

struct Avx512Kernels {
    template <std::size_t kPixelBytes, bool kFlip>
    static LineKernels swap() noexcept {
        return kKernels<SamePixels<kPixelBytes, kFlip>>;
    }
    static LineKernels half() noexcept { return kKernels<HalfPixels>; }
};

}  // namespace

LineKernels avx512_kernels(PixelType type) noexcept {
    return select_kernel<Avx512Kernels>(type);
}

}  // namespace vampires::detail

#endif

#include "file_sum.hpp"

#if defined(__x86_64__)
// The header leaves the unused input of unmasked operations uninitialized, which GCC 12 warns
// of wherever they are used (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <new>
#include <system_error>

#include "fits_sum.hpp"
#include "pixel_kernels_detail.hpp"

namespace vampires {
namespace {

// Small enough for the second-level cache of every core, large enough that the calls of the
// kernel cost nothing beside the copy they make.
constexpr std::size_t kPieceBytes = std::size_t{256} << 10;

// Sums whole lines of 64 bytes, fewer than 2^31.
using LineSum = std::uint32_t (*)(const std::byte* bytes, std::size_t n_lines) noexcept;

#if defined(__x86_64__)

// The bytes of 32-bit words in reverse order.
constexpr long long kReverseHigh = 0x0C0D0E0F08090A0B;
constexpr long long kReverseLow = 0x0405060700010203;

template <std::size_t kLanes>
std::uint32_t folded(const std::uint64_t (&lanes)[kLanes]) noexcept {
    std::uint32_t sum = 0;
    for (const std::uint64_t lane : lanes) sum = sum_add(sum, detail::fold_carries(lane));
    return sum;
}

// Words are added up in 64-bit lanes, which hold 2^32 of them.
__attribute__((target("avx512f,avx512bw"))) std::uint32_t line_sum_avx512(
    const std::byte* bytes, std::size_t n_lines) noexcept {
    const __m512i reverse = _mm512_broadcast_i32x4(_mm_set_epi64x(kReverseHigh, kReverseLow));
    const __m512i low_words = _mm512_set1_epi64(0xFFFFFFFF);
    __m512i even = _mm512_setzero_si512();
    __m512i odd = _mm512_setzero_si512();
    for (std::size_t line = 0; line < n_lines; ++line, bytes += detail::kLineBytes) {
        const __m512i words = _mm512_shuffle_epi8(_mm512_loadu_si512(bytes), reverse);
        even = _mm512_add_epi64(even, _mm512_and_si512(words, low_words));
        odd = _mm512_add_epi64(odd, _mm512_srli_epi64(words, 32));
    }
    alignas(64) std::uint64_t lanes[16];
    _mm512_store_si512(lanes, even);
    _mm512_store_si512(lanes + 8, odd);
    return folded(lanes);
}

__attribute__((target("avx2"))) std::uint32_t line_sum_avx2(const std::byte* bytes,
                                                            std::size_t n_lines) noexcept {
    const __m256i reverse =
        _mm256_broadcastsi128_si256(_mm_set_epi64x(kReverseHigh, kReverseLow));
    const __m256i low_words = _mm256_set1_epi64x(0xFFFFFFFF);
    __m256i even = _mm256_setzero_si256();
    __m256i odd = _mm256_setzero_si256();
    for (std::size_t line = 0; line < n_lines; ++line) {
        for (int half = 0; half < 2; ++half, bytes += sizeof(__m256i)) {
            const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
            const __m256i words = _mm256_shuffle_epi8(raw, reverse);
            even = _mm256_add_epi64(even, _mm256_and_si256(words, low_words));
            odd = _mm256_add_epi64(odd, _mm256_srli_epi64(words, 32));
        }
    }
    alignas(32) std::uint64_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), even);
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes + 4), odd);
    return folded(lanes);
}

#endif

LineSum line_sum([[maybe_unused]] KernelVariant variant) noexcept {
#if defined(__x86_64__)
    if (variant == KernelVariant::avx512) return line_sum_avx512;
    if (variant == KernelVariant::avx2) return line_sum_avx2;
#endif
    return nullptr;
}

KernelVariant chosen_variant() noexcept {
    static const KernelVariant chosen = [] {
        KernelVariant best = KernelVariant::generic;
        for (const KernelVariant variant : kKernelVariants) {
            best = kernel_supported(variant) ? variant : best;
        }
        return best;
    }();
    return chosen;
}

struct Free {
    void operator()(void* memory) const noexcept { ::operator delete(memory, kAlignment); }
    static constexpr std::align_val_t kAlignment{4096};
};

// What could be read: n_bytes, or as many as there are before the end of the file.
std::size_t read_piece(int fd, std::byte* into, std::size_t n_bytes, std::uint64_t offset) {
    std::size_t done = 0;
    while (done < n_bytes) {
        const ::ssize_t got =
            ::pread(fd, into + done, n_bytes - done, static_cast<::off_t>(offset + done));
        if (got == 0) break;
        if (got > 0) {
            done += static_cast<std::size_t>(got);
        } else if (errno != EINTR) {
            throw std::system_error(errno, std::system_category(), "cannot read the file");
        }
    }
    return done;
}

}  // namespace

std::uint32_t fast_sum(const void* bytes, std::size_t n_bytes) noexcept {
    return fast_sum_with(chosen_variant(), bytes, n_bytes);
}

std::uint32_t fast_sum_with(KernelVariant variant, const void* bytes,
                            std::size_t n_bytes) noexcept {
    const LineSum sum_lines = line_sum(variant);
    if (sum_lines == nullptr) return fits_sum(bytes, n_bytes);
    const auto* const first = static_cast<const std::byte*>(bytes);
    const std::size_t n_lines = n_bytes / detail::kLineBytes;
    const std::size_t in_lines = n_lines * detail::kLineBytes;
    return sum_add(sum_lines(first, n_lines), fits_sum(first + in_lines, n_bytes - in_lines));
}

FileSum file_sum(int fd, std::uint64_t offset, std::uint64_t n_bytes) {
    const std::unique_ptr<std::byte, Free> piece(
        static_cast<std::byte*>(::operator new(kPieceBytes, Free::kAlignment)));
    FileSum result{0, 0};
    while (result.bytes < n_bytes) {
        const auto wanted = static_cast<std::size_t>(
            std::min<std::uint64_t>(kPieceBytes, n_bytes - result.bytes));
        const std::size_t got = read_piece(fd, piece.get(), wanted, offset + result.bytes);
        result.sum = sum_add(result.sum, sum_shift(fast_sum(piece.get(), got), result.bytes));
        result.bytes += got;
        if (got < wanted) break;
    }
    return result;
}

}  // namespace vampires

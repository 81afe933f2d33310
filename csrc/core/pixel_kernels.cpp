#include "pixel_kernels.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cstdint>

#include "fits_sum.hpp"
#include "pixel_kernels_detail.hpp"

namespace vampires {
namespace {

// Below this, waiting for streaming stores to drain costs more than they save.
constexpr std::size_t kMinStreamBytes = 4096;

KernelVariant best_variant() noexcept {
    KernelVariant best = KernelVariant::generic;
    for (const KernelVariant variant : kKernelVariants) {
        best = kernel_supported(variant) ? variant : best;
    }
    return best;
}

KernelVariant chosen_variant() noexcept {
    static const KernelVariant chosen = best_variant();
    return chosen;
}

// The line kernels of a vector variant for a type that has a FITS form.
std::optional<detail::LineKernels> line_kernels([[maybe_unused]] KernelVariant variant,
                                                [[maybe_unused]] PixelType type) noexcept {
#if defined(__x86_64__)
    if (variant == KernelVariant::avx512) {
        return detail::avx512_kernels(type);
    }
    if (variant == KernelVariant::avx2) {
        return detail::avx2_kernels(type);
    }
#endif
    return std::nullopt;
}

// Whole lines of dst go through the line kernels, what comes before and after through the
// generic one.
std::uint32_t convert_by_lines(const detail::LineKernels& kernels, PixelType type,
                               const std::byte* src, std::byte* dst,
                               std::size_t n_pixels) noexcept {
    const detail::PixelKernel convert_pixels = detail::generic_kernel(type);
    const std::size_t src_bytes = pixel_bytes(type);
    const std::size_t dst_bytes = fits_form(type)->bytes_per_pixel;
    const std::size_t line_pixels = detail::kLineBytes / dst_bytes;

    const std::size_t to_line_bytes =
        (0 - reinterpret_cast<std::uintptr_t>(dst)) % detail::kLineBytes;
    const std::size_t head_pixels = std::min(n_pixels, to_line_bytes / dst_bytes);
    const std::size_t n_lines = (n_pixels - head_pixels) / line_pixels;
    const std::size_t tail_first = head_pixels + n_lines * line_pixels;
    const bool stream = n_lines * detail::kLineBytes >= kMinStreamBytes;
    const auto convert_lines = stream ? kernels.streaming : kernels.ordinary;

    const std::uint32_t head = convert_pixels(src, dst, head_pixels);
    const std::uint32_t lines =
        convert_lines(src + head_pixels * src_bytes, dst + head_pixels * dst_bytes, n_lines);
    const std::uint32_t tail = convert_pixels(
        src + tail_first * src_bytes, dst + tail_first * dst_bytes, n_pixels - tail_first);
    // Lines are whole words: they do not shift the tail further than the head does.
    return sum_add(head, sum_shift(sum_add(lines, tail), head_pixels * dst_bytes));
}

#if defined(__x86_64__)
// By the processor's own word: not every compiler knows this feature by name.
bool has_f16c() noexcept {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

}  // namespace

std::optional<FitsForm> fits_form(PixelType type) noexcept {
    switch (type) {
        case PixelType::u8:
        case PixelType::i8:
            return FitsForm{8, 1};
        case PixelType::u16:
        case PixelType::i16:
            return FitsForm{16, 2};
        case PixelType::u32:
        case PixelType::i32:
            return FitsForm{32, 4};
        case PixelType::u64:
        case PixelType::i64:
            return FitsForm{64, 8};
        case PixelType::f16:
        case PixelType::f32:
            return FitsForm{-32, 4};
        case PixelType::f64:
            return FitsForm{-64, 8};
        case PixelType::c64:
        case PixelType::c128:
            break;
    }
    return std::nullopt;
}

std::uint32_t convert_to_fits(PixelType type, const void* src, void* dst,
                              std::size_t n_pixels) noexcept {
    return convert_to_fits_with(chosen_variant(), type, src, dst, n_pixels);
}

bool kernel_supported(KernelVariant variant) noexcept {
#if defined(__x86_64__)
    switch (variant) {
        case KernelVariant::generic:
            return true;
        case KernelVariant::avx2:
            return __builtin_cpu_supports("avx2") && has_f16c();
        case KernelVariant::avx512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
    }
    return false;
#else
    return variant == KernelVariant::generic;
#endif
}

std::uint32_t convert_to_fits_with(KernelVariant variant, PixelType type, const void* src,
                                   void* dst, std::size_t n_pixels) noexcept {
    if (!fits_form(type)) {
        return 0;
    }
    const auto* const from = static_cast<const std::byte*>(src);
    auto* const to = static_cast<std::byte*>(dst);
    if (const auto kernels = line_kernels(variant, type)) {
        return convert_by_lines(*kernels, type, from, to, n_pixels);
    }
    return detail::generic_kernel(type)(from, to, n_pixels);
}

const char* kernel_variant() noexcept {
    switch (chosen_variant()) {
        case KernelVariant::avx512:
            return "avx512";
        case KernelVariant::avx2:
            return "avx2";
        case KernelVariant::generic:
            break;
    }
    return "generic";
}

}  // namespace vampires

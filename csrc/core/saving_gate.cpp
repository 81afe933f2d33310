#include "saving_gate.hpp"

#include <algorithm>
#include <utility>

namespace vampires {
namespace {

// A camera's clock may be off by this much before the logger's is believed.
constexpr std::int64_t kClockDoubt_ns = 1'000'000'000;

}  // namespace

SavingGate::SavingGate(bool controlled, const SavingLimits& limits)
    : phase_(controlled ? Phase::off : Phase::saving),
      sessions_(controlled ? 0 : 1),
      limits_(limits) {}

SavingState SavingGate::state() const noexcept {
    if (off()) return SavingState::off;
    if (armed()) return SavingState::armed;
    return ending() ? SavingState::ending : SavingState::on;
}

bool SavingGate::begin(const SavingOrder& order) noexcept {
    if (!off() && ending()) {
        next_begin_ = order;
        return false;
    }
    if (saving()) return false;
    if (off()) ++sessions_;
    phase_ = Phase::waiting;
    start_ns_ = order.instant_ns;
    limits_ = order.limits;
    count_from(0);
    return true;
}

bool SavingGate::end(const SavingOrder& order, bool cube_under_way) noexcept {
    if (off()) return false;
    next_begin_.reset();
    whole_cube_ = order.whole_cube;
    if (order.instant_ns == 0) return over_at_instant(cube_under_way);
    if (armed() && order.instant_ns <= start_ns_) return true;
    stop_ns_ = order.instant_ns;
    return false;
}

std::optional<SavingOrder> SavingGate::close() noexcept {
    phase_ = Phase::off;
    start_ns_ = 0;
    stop_ns_.reset();
    whole_cube_ = filling_ = false;
    return std::exchange(next_begin_, std::nullopt);
}

void SavingGate::count_from(std::uint64_t cnt0) noexcept {
    counted_from_ = cnt0;
    first_cnt0_ = cnt0 + 1;
}

std::uint64_t SavingGate::lost_before(std::uint64_t cnt0) const noexcept {
    return cnt0 > counted_from_ ? cnt0 - counted_from_ - 1 : 0;
}

SavingGate::Sight SavingGate::first_sight(std::uint64_t cnt0, std::uint64_t newest) noexcept {
    if (off()) return Sight::pass;
    if (armed()) return Sight::look;
    if (!waiting()) return Sight::save;
    if (newest + 1 < first_cnt0_) count_from(cnt0 - 1);  // the stream counts from anew
    return cnt0 < first_cnt0_ ? Sight::pass : Sight::save;
}

bool SavingGate::starts_with(std::uint64_t cnt0, const FrameTime& time,
                             bool counter_reset) noexcept {
    if (reached(start_ns_, time)) {
        start_ns_ = 0;
        first_cnt0_ = cnt0;
        if (counter_reset) counted_from_ = cnt0 - 1;
        return true;
    }
    counted_from_ = counter_reset ? cnt0 : std::max(counted_from_, cnt0);
    return false;
}

bool SavingGate::admits(const FrameTime& time, bool cube_under_way) noexcept {
    if (stop_ns_ && reached(*stop_ns_, time) && over_at_instant(cube_under_way)) return false;
    phase_ = Phase::saving;
    return true;
}

bool SavingGate::over_at_instant(bool cube_under_way) noexcept {
    stop_ns_.reset();
    filling_ = whole_cube_ && cube_under_way;
    return !filling_;
}

// By the frame's time; or by the logger's clock, when frames keep coming that were published
// long after the instant and say that they were acquired before it.
bool SavingGate::reached(std::int64_t instant_ns, const FrameTime& time) noexcept {
    if (time.ns >= instant_ns) return true;
    if (time.published_after_ns - instant_ns <= kClockDoubt_ns) return false;
    clock_offset_ns_ = time.published_after_ns - time.ns;
    return true;
}

std::optional<std::int64_t> SavingGate::take_clock_offset_ns() noexcept {
    return std::exchange(clock_offset_ns_, std::nullopt);
}

}  // namespace vampires

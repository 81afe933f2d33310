// The bytes of milk's TCP stream (imnetwtransmit, imnetwreceive), read and written.
//
//     handshake   384 bytes: the IMAGE_METADATA of the source, as it stands
//     a frame     the pixels of one slice, i64 cnt0, i64 cnt1 (the slice), NBkw * 128 bytes of
//                 keywords
//
// Native little endian; nothing flows back. Nothing here touches a socket, a clock or shared
// memory, and nothing that was received is believed before it was checked.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

#include "isio_layout.hpp"

namespace vampires {

inline constexpr std::size_t kHandshakeBytes = sizeof(StreamMetadata);
inline constexpr std::size_t kCountersBytes = 2 * sizeof(std::int64_t);
// As cnt0 behind a frame that was overwritten while it was sent. Ours publishes nothing then;
// milk's receiver publishes such frames whatever they are told.
inline constexpr std::int64_t kVoidFrame = -1;

// What a peer sent makes no sense. The text says what was found and expected.
struct WireError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// What a sender announces: its stream, as the copy here is to be.
struct LinkOffer {
    std::string name;
    StreamShape shape;         // the ring kept where it is one; no CBsize copies
    std::uint64_t cnt0 = 0;    // frames after this one are to come
    std::uint64_t source = 0;  // the inode there: another one is another stream
    std::uint64_t slots = 1;   // slices
    std::uint64_t newest = 0;  // the slice written last
    std::uint64_t frame_bytes = 0;

    std::size_t trailer_bytes() const noexcept {
        return kCountersBytes + std::size_t{shape.keywords} * sizeof(KeywordEntry);
    }
};

// Throws WireError for what is no stream, and for one larger than max_bytes in shared memory.
LinkOffer parse_handshake(std::span<const std::byte, kHandshakeBytes> bytes,
                          std::uint64_t max_bytes);

// The handshake of a stream; cnt0 is the count before its first frame to come.
std::array<std::byte, kHandshakeBytes> make_handshake(const StreamMetadata& metadata,
                                                      std::uint64_t cnt0);

struct FrameTrailer {
    bool is_void = false;
    std::uint64_t cnt0 = 0;
    std::uint64_t slice = 0;       // 0 where frames have none
    std::int64_t acquired_ns = 0;  // UTC, from the keyword _MAQTIME; 0: it gives none
};

// Checks what follows the pixels, and makes the keywords in it (from kCountersBytes on) such
// as any reader may take: texts end, types are known, the list has no more than it had.
// bytes is as long as offer.trailer_bytes(). Throws WireError.
FrameTrailer parse_trailer(std::span<std::byte> bytes, const LinkOffer& offer);

// Writes cnt0 and the slice to the first 16 bytes.
void put_counters(std::span<std::byte, kCountersBytes> bytes, std::int64_t cnt0,
                  std::uint64_t slice) noexcept;

}  // namespace vampires

// libFuzzer: what a peer of the fast link may send, read from arbitrary bytes.
//
// The handshake, then as many trailers as the bytes last. Whatever is accepted keeps the
// promises of tcp_wire.hpp; anything else is refused with WireError.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "tcp_wire.hpp"

using namespace vampires;

namespace {

void must(bool promise) {
    if (!promise) std::abort();
}

void check_keywords(std::span<const std::byte> entries) {
    for (std::size_t at = 0; at < entries.size(); at += sizeof(KeywordEntry)) {
        KeywordEntry entry;
        std::memcpy(&entry, entries.data() + at, sizeof entry);
        must(std::memchr(entry.name, 0, sizeof entry.name) != nullptr);
        must(std::memchr(entry.comment, 0, sizeof entry.comment) != nullptr);
        must(std::strchr("LDSN", entry.type) != nullptr && entry.type != 0);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    constexpr std::uint64_t kMost = std::uint64_t{1} << 28;
    const auto* bytes = reinterpret_cast<const std::byte*>(data);
    if (size < kHandshakeBytes) return 0;
    LinkOffer offer;
    try {
        offer = parse_handshake(
            std::span<const std::byte, kHandshakeBytes>(bytes, kHandshakeBytes), kMost);
    } catch (const WireError&) {
        return 0;
    }
    must(!offer.name.empty() && offer.name.size() < 80);
    must(offer.name.find('/') == std::string::npos && offer.name[0] != '.');
    must(offer.slots >= 1 && offer.newest < offer.slots && offer.frame_bytes >= 1);
    must(offer.slots <= kMost / offer.frame_bytes);
    std::size_t at = kHandshakeBytes;
    std::vector<std::byte> trailer(offer.trailer_bytes());
    while (size - at >= trailer.size()) {
        std::memcpy(trailer.data(), bytes + at, trailer.size());
        at += trailer.size();
        try {
            const FrameTrailer frame = parse_trailer(trailer, offer);
            must(frame.slice < offer.slots);
            check_keywords(std::span(trailer).subspan(kCountersBytes));
        } catch (const WireError&) {
        }
    }
    return 0;
}

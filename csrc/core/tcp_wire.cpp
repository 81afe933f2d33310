#include "tcp_wire.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "acquisition_keyword.hpp"
#include "errors.hpp"
#include "stream_file.hpp"

namespace vampires {
namespace {

std::string checked_name(const StreamMetadata& metadata) {
    const std::string_view field(metadata.name, sizeof metadata.name);
    const std::string name(field.substr(0, field.find('\0')));
    stream_path("", name);  // throws for a name that leads elsewhere
    return name;
}

StreamShape checked_offer(const StreamMetadata& metadata) {
    StreamShape shape;
    shape.type = static_cast<PixelType>(metadata.datatype);
    shape.naxis = metadata.naxis;
    if (pixel_bytes(shape.type) == 0) {
        throw WireError("datatype " + std::to_string(metadata.datatype) + ", expected 1 to 13");
    }
    if (shape.naxis < 1 || shape.naxis > 3) {
        throw WireError(std::to_string(shape.naxis) + " axes, expected 1 to 3");
    }
    std::copy_n(metadata.size, shape.naxis, shape.size.begin());
    const bool ring =
        shape.naxis == 3 && (metadata.imagetype & kTemporalRingMask) == kTemporalRing;
    shape.imagetype = ring ? kTemporalRing : kMathData;
    shape.keywords = metadata.nb_kw;
    return shape;
}

// Fields of fixed length: the last byte ends the text.
void end_texts(KeywordEntry& entry) noexcept {
    entry.name[sizeof entry.name - 1] = '\0';
    entry.comment[sizeof entry.comment - 1] = '\0';
    if (entry.type == 'S') entry.value.as_text[sizeof entry.value.as_text - 1] = '\0';
    if (entry.type != 'L' && entry.type != 'D' && entry.type != 'S') entry.type = 'N';
}

}  // namespace

LinkOffer parse_handshake(std::span<const std::byte, kHandshakeBytes> bytes,
                          std::uint64_t max_bytes) {
    StreamMetadata metadata;
    std::memcpy(&metadata, bytes.data(), sizeof metadata);
    if (std::strncmp(metadata.version, kIsioVersion, sizeof metadata.version) != 0) {
        const std::string_view found(metadata.version, sizeof metadata.version);
        throw WireError("version '" + printable(found.substr(0, found.find('\0'))) +
                        "', expected " + kIsioVersion);
    }
    LinkOffer offer;
    std::uint64_t stream_bytes = 0;
    try {
        offer.name = checked_name(metadata);
        offer.shape = checked_offer(metadata);
        stream_bytes = compute_layout(offer.shape).file_bytes;
    } catch (const StreamError& error) {
        throw WireError(error.what());
    }
    if (stream_bytes > max_bytes) {
        throw WireError("a stream of " + std::to_string(stream_bytes) +
                        " bytes, expected at most " + std::to_string(max_bytes));
    }
    const StreamShape& shape = offer.shape;
    offer.slots = shape.naxis == 3 ? shape.size[2] : 1;
    offer.frame_bytes = shape.elements() / offer.slots * pixel_bytes(shape.type);
    offer.newest = metadata.cnt1 < offer.slots ? metadata.cnt1 : 0;
    offer.cnt0 = metadata.cnt0;
    offer.source = metadata.inode;
    return offer;
}

std::array<std::byte, kHandshakeBytes> make_handshake(const StreamMetadata& metadata,
                                                      std::uint64_t cnt0) {
    std::array<std::byte, kHandshakeBytes> bytes;
    std::memcpy(bytes.data(), static_cast<const void*>(&metadata), bytes.size());
    std::memcpy(bytes.data() + offsetof(StreamMetadata, cnt0), &cnt0, sizeof cnt0);
    return bytes;
}

FrameTrailer parse_trailer(std::span<std::byte> bytes, const LinkOffer& offer) {
    std::int64_t cnt0 = 0;
    std::int64_t cnt1 = 0;
    std::memcpy(&cnt0, bytes.data(), sizeof cnt0);
    std::memcpy(&cnt1, bytes.data() + sizeof cnt0, sizeof cnt1);
    if (cnt0 < 0 && cnt0 != kVoidFrame) {
        throw WireError("cnt0 " + std::to_string(cnt0) + " of a frame, expected 0 or more");
    }
    const auto slots = static_cast<std::int64_t>(offer.slots);
    if (offer.shape.naxis == 3 && (cnt1 < 0 || cnt1 >= slots)) {
        throw WireError("slice " + std::to_string(cnt1) + " of a frame, expected 0 to " +
                        std::to_string(slots - 1));
    }
    FrameTrailer trailer;
    trailer.is_void = cnt0 == kVoidFrame;
    trailer.cnt0 = trailer.is_void ? 0 : static_cast<std::uint64_t>(cnt0);
    trailer.slice = offer.shape.naxis == 3 ? static_cast<std::uint64_t>(cnt1) : 0;
    for (std::size_t at = kCountersBytes; at < bytes.size(); at += sizeof(KeywordEntry)) {
        KeywordEntry entry;
        std::memcpy(&entry, bytes.data() + at, sizeof entry);
        end_texts(entry);
        if (trailer.acquired_ns == 0) trailer.acquired_ns = acquisition_ns(entry);
        std::memcpy(bytes.data() + at, &entry, sizeof entry);
    }
    return trailer;
}

void put_counters(std::span<std::byte, kCountersBytes> bytes, std::int64_t cnt0,
                  std::uint64_t slice) noexcept {
    const auto cnt1 = static_cast<std::int64_t>(slice);
    std::memcpy(bytes.data(), &cnt0, sizeof cnt0);
    std::memcpy(bytes.data() + sizeof cnt0, &cnt1, sizeof cnt1);
}

}  // namespace vampires

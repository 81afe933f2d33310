#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tcp_wire.hpp"

using namespace vampires;

namespace {

constexpr std::uint64_t kPlenty = std::uint64_t{1} << 30;

StreamMetadata camera() {
    StreamMetadata md = {};
    std::strcpy(md.version, kIsioVersion);
    std::strcpy(md.name, "vcam1");
    md.naxis = 3;
    md.size[0] = 6;
    md.size[1] = 4;
    md.size[2] = 5;
    md.nelement = 120;
    md.datatype = 3;
    md.imagetype = kTemporalRing;
    md.inode = 77;
    md.cnt0 = 12;
    md.cnt1 = 3;
    md.nb_kw = 2;
    return md;
}

LinkOffer parsed(const StreamMetadata& md, std::uint64_t max_bytes = kPlenty) {
    return parse_handshake(make_handshake(md, md.cnt0), max_bytes);
}

std::string refusal(const StreamMetadata& md, std::uint64_t max_bytes = kPlenty) {
    try {
        parsed(md, max_bytes);
    } catch (const WireError& error) {
        return error.what();
    }
    return "";
}

template <typename Change>
std::string refusal_after(Change change) {
    StreamMetadata md = camera();
    change(md);
    return refusal(md);
}

bool tells(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

KeywordEntry keyword(const char* name, char type) {
    KeywordEntry entry = {};
    std::strcpy(entry.name, name);
    entry.type = type;
    return entry;
}

std::vector<std::byte> trailer(std::int64_t cnt0, std::int64_t cnt1,
                               const std::vector<KeywordEntry>& keywords) {
    std::vector<std::byte> bytes(kCountersBytes + keywords.size() * sizeof(KeywordEntry));
    std::memcpy(bytes.data(), &cnt0, sizeof cnt0);
    std::memcpy(bytes.data() + sizeof cnt0, &cnt1, sizeof cnt1);
    if (!keywords.empty()) {
        std::memcpy(bytes.data() + kCountersBytes, keywords.data(),
                    keywords.size() * sizeof(KeywordEntry));
    }
    return bytes;
}

KeywordEntry entry_at(const std::vector<std::byte>& bytes, std::size_t index) {
    KeywordEntry entry;
    std::memcpy(&entry, bytes.data() + kCountersBytes + index * sizeof entry, sizeof entry);
    return entry;
}

}  // namespace

TEST_CASE("a handshake says what the stream is") {
    const LinkOffer offer = parsed(camera());
    CHECK(offer.name == "vcam1");
    CHECK(offer.shape.temporal_ring());
    CHECK(offer.slots == 5);
    CHECK(offer.newest == 3);
    CHECK(offer.frame_bytes == 6 * 4 * 2);
    CHECK(offer.cnt0 == 12);
    CHECK(offer.source == 77);
    CHECK(offer.trailer_bytes() == 16 + 2 * 128);
}

TEST_CASE("a stream that is no ring is copied as plain data") {
    StreamMetadata md = camera();
    md.imagetype = 0xFFFF'FFFF'0000'0001;
    md.cb_size = 1000;
    CHECK(parsed(md).shape.imagetype == kMathData);
    CHECK(parsed(md).shape.cb_size == 0);
    md.naxis = 2;
    md.imagetype = kTemporalRing;
    CHECK(parsed(md).shape.imagetype == kMathData);
    CHECK(parsed(md).slots == 1);
    CHECK(parsed(md).frame_bytes == 48);
}

TEST_CASE("a handshake that makes no sense is refused with what was found") {
    CHECK(tells(refusal_after([](auto& md) { std::strcpy(md.version, "9.9"); }), "'9.9'"));
    CHECK(tells(refusal_after([](auto& md) { std::memset(&md, 0xA5, sizeof md); }), "version"));
    CHECK(tells(refusal_after([](auto& md) { md.datatype = 20; }), "datatype 20"));
    CHECK(tells(refusal_after([](auto& md) { md.datatype = 0; }), "datatype 0"));
    CHECK(tells(refusal_after([](auto& md) { md.naxis = 4; }), "4 axes"));
    CHECK(tells(refusal_after([](auto& md) { md.naxis = 0; }), "0 axes"));
    CHECK(!refusal_after([](auto& md) { md.size[1] = 0; }).empty());
    CHECK(!refusal_after([](auto& md) { md.size[0] = md.size[1] = UINT32_MAX; }).empty());
    for (const char* name : {"", "../../x", "a/b", ".hidden", "two words"}) {
        CAPTURE(name);
        CHECK(!refusal_after([&](auto& md) { std::strcpy(md.name, name); }).empty());
    }
    CHECK(!refusal_after([](auto& md) { std::memset(md.name, 'x', sizeof md.name); }).empty());
}

TEST_CASE("a stream larger than allowed is refused before any memory is taken") {
    StreamMetadata md = camera();
    md.size[2] = 100'000;
    CHECK(tells(refusal(md, 1'000'000), "at most 1000000"));
    md.size[2] = 1;
    md.nb_kw = 65535;
    CHECK(tells(refusal(md, 1'000'000), "at most 1000000"));
    CHECK(parsed(md).trailer_bytes() == 16 + 65535 * 128);
}

TEST_CASE("what follows the pixels says which frame it was") {
    const LinkOffer offer = parsed(camera());
    auto bytes = trailer(41, 4, {keyword("A", 'L'), keyword("B", 'D')});
    const FrameTrailer frame = parse_trailer(bytes, offer);
    CHECK_FALSE(frame.is_void);
    CHECK(frame.cnt0 == 41);
    CHECK(frame.slice == 4);
    CHECK(frame.acquired_ns == 0);
}

TEST_CASE("an acquisition time among the keywords is the time of the frame") {
    const LinkOffer offer = parsed(camera());
    KeywordEntry time = keyword("_MAQTIME", 'L');
    time.value.as_int = 1'700'000'000'123'456;
    auto bytes = trailer(1, 0, {keyword("A", 'L'), time});
    CHECK(parse_trailer(bytes, offer).acquired_ns == 1'700'000'000'123'456'000);
}

TEST_CASE("a frame that was overwritten while it was sent is void") {
    const LinkOffer offer = parsed(camera());
    auto bytes = trailer(kVoidFrame, 2, {keyword("A", 'L'), keyword("B", 'D')});
    CHECK(parse_trailer(bytes, offer).is_void);
}

TEST_CASE("counters and slices that cannot be are refused") {
    const LinkOffer offer = parsed(camera());
    constexpr std::int64_t kLowest = std::numeric_limits<std::int64_t>::min();
    for (const std::int64_t cnt0 : {std::int64_t{-2}, kLowest}) {
        auto bytes = trailer(cnt0, 0, std::vector<KeywordEntry>(2));
        CHECK_THROWS_AS(parse_trailer(bytes, offer), WireError);
    }
    for (const std::int64_t slice : {std::int64_t{-1}, std::int64_t{5}, kLowest, INT64_MAX}) {
        auto bytes = trailer(1, slice, std::vector<KeywordEntry>(2));
        CHECK_THROWS_AS(parse_trailer(bytes, offer), WireError);
    }
}

TEST_CASE("a 2D stream has no slices: some writers count there") {
    StreamMetadata md = camera();
    md.naxis = 2;
    const LinkOffer offer = parsed(md);
    auto bytes = trailer(1, 99, std::vector<KeywordEntry>(2));
    CHECK(parse_trailer(bytes, offer).slice == 0);
}

TEST_CASE("keywords are made such that any reader may take them") {
    const LinkOffer offer = parsed(camera());
    KeywordEntry open_ended;
    std::memset(static_cast<void*>(&open_ended), 'x', sizeof open_ended);
    open_ended.type = 'S';
    KeywordEntry odd = keyword("ODD", 'q');
    auto bytes = trailer(1, 0, {open_ended, odd});
    parse_trailer(bytes, offer);
    const KeywordEntry ended = entry_at(bytes, 0);
    CHECK(std::string(ended.name) == std::string(15, 'x'));
    CHECK(std::string(ended.value.as_text) == std::string(15, 'x'));
    CHECK(std::string(ended.comment) == std::string(79, 'x'));
    CHECK(entry_at(bytes, 1).type == 'N');
}

TEST_CASE("counters are written where they are read") {
    StreamMetadata md = camera();
    md.nb_kw = 0;
    std::vector<std::byte> bytes(kCountersBytes);
    put_counters(std::span<std::byte, kCountersBytes>(bytes), 123, 4);
    const FrameTrailer frame = parse_trailer(bytes, parsed(md));
    CHECK(frame.cnt0 == 123);
    CHECK(frame.slice == 4);
}

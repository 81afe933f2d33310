// Both ends of the fast link in one process, over the loopback.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "errors.hpp"
#include "keyword_notes.hpp"
#include "network.hpp"
#include "stream_copy.hpp"
#include "stream_reader.hpp"
#include "stream_writer.hpp"
#include "tcp_receiver.hpp"
#include "tcp_sender.hpp"
#include "tcp_wire.hpp"
#include "temp_directory.hpp"

using namespace vampires;
using std::chrono::milliseconds;
using vampires::testing::TempDirectory;

namespace {

constexpr std::uint32_t kSide = 256;
constexpr std::size_t kPixels = std::size_t{kSide} * kSide;

// Until it holds; false after a patience that no healthy run needs.
bool eventually(const std::function<bool()>& holds) {
    for (int k = 0; k < 10'000; ++k) {
        if (holds()) return true;
        std::this_thread::sleep_for(milliseconds(2));
    }
    return false;
}

StreamSpec spec_of(std::uint32_t ring, std::uint32_t side = kSide) {
    StreamSpec spec;
    spec.shape.type = PixelType::u16;
    spec.shape.naxis = ring > 0 ? 3 : 2;
    spec.shape.size = {side, side, ring};
    spec.shape.imagetype = ring > 0 ? kTemporalRing : kMathData;
    spec.shape.keywords = 3;
    return spec;
}

KeywordEntry number(const char* name, std::int64_t value) {
    KeywordEntry entry = {};
    std::strcpy(entry.name, name);
    entry.type = 'L';
    entry.value.as_int = value;
    return entry;
}

// Every pixel of a frame, and its keyword, is the counter.
std::uint64_t publish(StreamWriter& writer) {
    const std::uint64_t cnt0 = writer.cnt0() + 1;
    auto* pixels = reinterpret_cast<std::uint16_t*>(writer.next_slot());
    std::fill_n(pixels, writer.frame_bytes() / 2, static_cast<std::uint16_t>(cnt0));
    writer.set_keyword(number("COUNT", static_cast<std::int64_t>(cnt0)));
    return writer.publish(0);
}

bool all_are(const std::vector<std::uint16_t>& pixels, std::uint64_t value) {
    return std::all_of(pixels.begin(), pixels.end(), [&](std::uint16_t pixel) {
        return pixel == static_cast<std::uint16_t>(value);
    });
}

NetworkRange loopback() {
    NetworkRange range;
    range.address = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
    return range;
}

TcpReceiverConfig receiver_config(const std::string& directory, std::uint16_t port = 0) {
    TcpReceiverConfig config;
    config.directory = directory;
    config.listen = "127.0.0.1";
    config.port = port;
    config.allowed = {loopback()};
    return config;
}

TcpSenderConfig sender_config(const std::string& directory, std::uint16_t port) {
    TcpSenderConfig config;
    config.directory = directory;
    config.stream = "vcam1";
    config.host = "127.0.0.1";
    config.port = port;
    return config;
}

struct TwoHosts {
    TempDirectory here{true};
    TempDirectory there{true};
};

// Reads what comes into the copy there, and checks that no frame is mixed or mislabelled.
class Checker {
  public:
    explicit Checker(const std::string& directory)
        : reader_(StreamFile::open(directory, "vcam1"), {}), pixels_(kPixels) {}

    // The counter of a whole frame; 0 when none came in time.
    std::uint64_t next(milliseconds timeout = milliseconds(10'000)) {
        FrameTicket ticket;
        for (;;) {
            if (reader_.wait(timeout) != Wake::frame) return 0;
            if (!reader_.begin(ticket)) continue;
            std::memcpy(pixels_.data(), ticket.pixels, reader_.frame_bytes());
            if (!reader_.confirm(ticket)) continue;
            lost += ticket.info.lost;
            CHECK(all_are(pixels_, ticket.info.cnt0));
            return ticket.info.cnt0;
        }
    }
    std::uint64_t lost = 0;

  private:
    StreamReader reader_;
    std::vector<std::uint16_t> pixels_;
};

bool in_both(const TcpReceiver& receiver, std::uint64_t cnt0) {
    return eventually([&] { return receiver.status().cnt0 == cnt0; });
}

// A peer that says what it likes.
class Stranger {
  public:
    explicit Stranger(std::uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
        sockaddr_in at = {};
        at.sin_family = AF_INET;
        at.sin_port = htons(port);
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(connect(fd_, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0);
    }
    ~Stranger() { close(fd_); }
    void say(const void* bytes, std::size_t count) const {
        const auto* at = static_cast<const char*>(bytes);
        while (count > 0) {
            const ssize_t sent = send(fd_, at, count, MSG_NOSIGNAL);
            REQUIRE(sent > 0);
            at += sent;
            count -= static_cast<std::size_t>(sent);
        }
    }

  private:
    int fd_;
};

}  // namespace

TEST_CASE("every frame crosses the link once, in order, with its keywords") {
    for (const std::uint32_t ring : {8U, 0U}) {
        CAPTURE(ring);
        const TwoHosts hosts;
        StreamWriter camera = StreamWriter::create(hosts.here.path(), "vcam1", spec_of(ring));
        publish(camera);
        TcpReceiver receiver(receiver_config(hosts.there.path()));
        receiver.start();
        TcpSender sender(sender_config(hosts.here.path(), receiver.port()));
        sender.start();
        REQUIRE(in_both(receiver, 1));  // the frame that was there already
        Checker checker(hosts.there.path());
        for (int k = 0; k < 200; ++k) {
            const std::uint64_t cnt0 = publish(camera);
            CHECK(checker.next() == cnt0);
            const auto copy = StreamFile::open(hosts.there.path(), "vcam1");
            CHECK(copy->keywords()[0].value.as_int == static_cast<std::int64_t>(cnt0));
        }
        CHECK(checker.lost == 0);
        sender.stop();
        receiver.stop();
        CHECK(sender.status().frames == 201);
        CHECK(receiver.status().frames == 201);
        CHECK(receiver.status().lost == 0);
        CHECK(receiver.status().refused == 0);
    }
}

TEST_CASE("a camera at full speed: what arrives is whole, what does not is counted") {
    for (const std::uint32_t ring : {6U, 0U}) {
        CAPTURE(ring);
        const TwoHosts hosts;
        StreamWriter camera = StreamWriter::create(hosts.here.path(), "vcam1", spec_of(ring));
        TcpReceiver receiver(receiver_config(hosts.there.path()));
        receiver.start();
        TcpSender sender(sender_config(hosts.here.path(), receiver.port()));
        sender.start();
        publish(camera);
        REQUIRE(eventually([&] { return receiver.status().frames > 0; }));
        const std::uint64_t first = receiver.status().cnt0;
        std::thread writing([&] {
            for (int k = 0; k < 2000; ++k) publish(camera);
        });
        Checker checker(hosts.there.path());
        for (int k = 0; k < 100 && checker.next() < 2000; ++k) continue;
        writing.join();
        REQUIRE(in_both(receiver, 2001));
        const TcpReceiverStatus there = receiver.status();
        CHECK(there.frames + there.lost == 2001 - first + 1);
        // The far end may have the last frame before the sender has counted it.
        REQUIRE(eventually([&] { return sender.status().cnt0 == there.cnt0; }));
        const TcpSenderStatus here = sender.status();
        CHECK(here.frames == there.frames);
        CHECK(here.lost == there.lost);
        CHECK(here.void_frames == there.void_frames);
    }
}

TEST_CASE("frames published while nobody received come from the ring") {
    const TwoHosts hosts;
    StreamWriter camera = StreamWriter::create(hosts.here.path(), "vcam1", spec_of(16));
    auto receiver = std::make_unique<TcpReceiver>(receiver_config(hosts.there.path()));
    const std::uint16_t port = receiver->port();
    receiver->start();
    TcpSender sender(sender_config(hosts.here.path(), port));
    sender.start();
    publish(camera);
    REQUIRE(in_both(*receiver, 1));
    Checker checker(hosts.there.path());
    for (int round = 0; round < 3; ++round) {
        receiver.reset();
        for (int k = 0; k < 5; ++k) publish(camera);
        receiver = std::make_unique<TcpReceiver>(receiver_config(hosts.there.path(), port));
        receiver->start();
        for (int k = 0; k < 5; ++k) {
            CHECK(checker.next() == static_cast<std::uint64_t>(2 + 5 * round + k));
        }
        CHECK(receiver->status().lost == 0);
    }
    CHECK(checker.lost == 0);
    CHECK(sender.status().lost == 0);
    CHECK(sender.status().connections == 4);
}

TEST_CASE("a stream made anew with another crop is made anew at the far end") {
    const TwoHosts hosts;
    auto camera = StreamWriter::create(hosts.here.path(), "vcam1", spec_of(8));
    TcpReceiver receiver(receiver_config(hosts.there.path()));
    receiver.start();
    TcpSender sender(sender_config(hosts.here.path(), receiver.port()));
    sender.start();
    publish(camera);
    REQUIRE(in_both(receiver, 1));
    for (const std::uint32_t side : {64U, 512U, 512U}) {
        const auto before = StreamFile::open(hosts.there.path(), "vcam1");
        camera = StreamWriter::create(hosts.here.path(), "vcam1", spec_of(8, side));
        for (int k = 0; k < 3; ++k) publish(camera);
        const std::uint64_t taken = receiver.status().connections;
        REQUIRE(eventually([&] {
            return receiver.status().connections > 1 && receiver.status().cnt0 == 3 &&
                   StreamFile::open(hosts.there.path(), "vcam1")->shape().size[0] == side;
        }));
        CHECK(taken >= 1);
        REQUIRE(eventually([&] { return sender.status().cnt0 == 3; }));
    }
    CHECK(receiver.status().lost == 0);
}

TEST_CASE("a relay's counter that goes on in a stream made anew is no loss") {
    const TwoHosts hosts;
    StreamSpec spec = spec_of(8);
    spec.cnt0 = 5'000'000;
    auto relay = StreamWriter::create(hosts.here.path(), "vcam1", spec);
    TcpReceiver receiver(receiver_config(hosts.there.path()));
    receiver.start();
    TcpSender sender(sender_config(hosts.here.path(), receiver.port()));
    sender.start();
    CHECK(publish(relay) == 5'000'001);
    REQUIRE(in_both(receiver, 5'000'001));
    REQUIRE(eventually([&] { return sender.status().cnt0 == 5'000'001; }));
    spec.cnt0 = 5'000'003;  // and two are missing between
    relay = StreamWriter::create(hosts.here.path(), "vcam1", spec);
    publish(relay);
    REQUIRE(in_both(receiver, 5'000'004));
    REQUIRE(eventually([&] { return sender.status().cnt0 == 5'000'004; }));
    CHECK(sender.status().lost == 2);
    CHECK(sender.status().frames == 2);
}

TEST_CASE("a counter that was set back leaves no frame out") {
    const TwoHosts hosts;
    auto camera = StreamWriter::create(hosts.here.path(), "vcam1", spec_of(16));
    for (int k = 0; k < 4; ++k) publish(camera);
    TcpReceiver receiver(receiver_config(hosts.there.path()));
    receiver.start();
    TcpSender sender(sender_config(hosts.here.path(), receiver.port()));
    sender.start();
    REQUIRE(in_both(receiver, 4));  // the one that was there
    publish(camera);
    REQUIRE(in_both(receiver, 5));
    store(camera.file()->metadata().cnt0, std::uint64_t{0});
    for (std::uint64_t k = 1; k <= 8; ++k) {
        publish(camera);
        REQUIRE(in_both(receiver, k));
    }
    CHECK(receiver.status().frames == 10);
    CHECK(receiver.status().lost == 0);
}

TEST_CASE("a copy shows nothing before its first frame") {
    for (const std::uint32_t ring : {8U, 1U, 0U}) {
        CAPTURE(ring);
        const TempDirectory folder(true);
        StreamCopy copy(folder.path(), "vcam1");
        copy.adopt(spec_of(ring).shape, 5'000'000);
        StreamReader reader(StreamFile::open(folder.path(), "vcam1"), {false, true, 0});
        FrameTicket ticket;
        CHECK(reader.wait(milliseconds(20)) == Wake::timeout);
        CHECK_FALSE(reader.begin_newest(ticket));
        copy.writer().open_slot(0);
        copy.writer().publish_slot(0, 5'000'001, 0, {});
        REQUIRE(reader.wait(milliseconds(10'000)) == Wake::frame);
        REQUIRE(reader.begin(ticket));
        CHECK(reader.confirm(ticket));
        CHECK(ticket.info.cnt0 == 5'000'001);
        CHECK(ticket.info.lost == 0);
    }
}

TEST_CASE("a frame that does not come to its end is never published") {
    for (const std::uint32_t ring : {4U, 1U, 0U}) {
        CAPTURE(ring);
        const TwoHosts hosts;
        StreamWriter camera = StreamWriter::create(hosts.here.path(), "vcam1", spec_of(ring));
        publish(camera);
        TcpReceiver receiver(receiver_config(hosts.there.path()));
        receiver.start();
        std::vector<std::byte> frame(camera.frame_bytes() + kCountersBytes +
                                     3 * sizeof(KeywordEntry));
        const auto handshake = make_handshake(camera.file()->metadata(), 0);
        const auto counters = std::span<std::byte, kCountersBytes>(
            frame.data() + camera.frame_bytes(), kCountersBytes);
        {
            const Stranger sender(receiver.port());
            sender.say(handshake.data(), handshake.size());
            put_counters(counters, 1, 0);
            sender.say(frame.data(), frame.size());
            REQUIRE(in_both(receiver, 1));
            std::fill(frame.begin(), frame.begin() + 1000, std::byte{0xFF});
            sender.say(frame.data(), frame.size() / 2);
        }
        REQUIRE(eventually(
            [&] { return receiver.status().state == TcpReceiverStatus::State::listening; }));
        const auto copy = StreamFile::open(hosts.there.path(), "vcam1");
        CHECK(load(copy->metadata().cnt0) == 1);
        CHECK(load(copy->metadata().write) == 0);
        CHECK(static_cast<int>(copy->pixels()[0]) == 0);
        CHECK(receiver.status().frames == 1);
    }
}

TEST_CASE("one receiver at a time fills a stream") {
    const TwoHosts hosts;
    StreamCopy first(hosts.there.path(), "vcam1");
    CHECK_FALSE(first.adopt(spec_of(4).shape));
    StreamCopy second(hosts.there.path(), "vcam1");
    CHECK_THROWS_AS(second.adopt(spec_of(4).shape), StreamBusy);
    CHECK_THROWS_AS(second.adopt(spec_of(9).shape), StreamBusy);
    first.close();
    CHECK(second.adopt(spec_of(4).shape));
    CHECK_FALSE(second.adopt(spec_of(5).shape));
    CHECK(second.current());
    unlink(second.path().c_str());
    CHECK_FALSE(second.current());
    CHECK_FALSE(second.adopt(spec_of(5).shape));
    CHECK(second.current());
}

TEST_CASE("what may be somebody's stream is not replaced, readable or not") {
    const TempDirectory folder(true);
    StreamWriter camera = StreamWriter::create(folder.path(), "vcam1", spec_of(4));
    StreamMetadata& md = camera.file()->metadata();
    StreamCopy copy(folder.path(), "vcam1");
    md.creator_pid = getppid();  // lives, and is older than the stream
    CHECK_THROWS_AS(copy.adopt(spec_of(4).shape), StreamBusy);
    md.location = 0;  // pixels on a GPU
    CHECK_THROWS_AS(copy.adopt(spec_of(4).shape), StreamBusy);
    md.creator_pid = 0;
    const std::string version(md.version);
    md.version[0] = '\0';  // just being made
    CHECK_THROWS_AS(copy.adopt(spec_of(4).shape), StreamBusy);
    std::memcpy(md.version, version.c_str(), version.size());
    CHECK_FALSE(copy.adopt(spec_of(4).shape));  // nobody's: replaced
}

TEST_CASE("a folder that somebody locks for good is told") {
    const TempDirectory folder(true);
    const Descriptor lock(open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(flock(lock.get(), LOCK_EX) == 0);
    StreamCopy copy(folder.path(), "vcam1");
    CHECK_THROWS_AS(copy.adopt(spec_of(4).shape), StreamBusy);
    flock(lock.get(), LOCK_UN);
    CHECK_FALSE(copy.adopt(spec_of(4).shape));
}

TEST_CASE("keywords are those of the frame, also when it is sent late") {
    const TempDirectory folder(true);
    StreamWriter camera = StreamWriter::create(folder.path(), "vcam1", spec_of(8));
    KeywordNotes notes(camera.file());
    KeywordEntry gain = number("GAIN", 1);
    camera.set_keyword(gain);
    camera.set_keyword(number("_MAQTIME", 1'700'000'000'000'001));
    publish(camera);  // frame 1
    notes.look();
    gain.value.as_int = 2;
    camera.set_keyword(gain);
    camera.set_keyword(number("_MAQTIME", 1'700'000'000'000'002));
    publish(camera);  // frame 2
    notes.look();
    std::vector<KeywordEntry> entries(3);
    const auto put = [&](std::uint64_t cnt0, std::int64_t acquired_ns) {
        FrameInfo frame;
        frame.cnt0 = cnt0;
        frame.acquired_ns = acquired_ns;
        notes.put(frame, std::as_writable_bytes(std::span(entries)));
    };
    put(1, 1'700'000'000'000'001'000);
    CHECK(entries[0].value.as_int == 1);
    CHECK(entries[1].value.as_int == 1'700'000'000'000'001);
    put(2, 1'700'000'000'000'009'000);
    CHECK(entries[0].value.as_int == 2);
    CHECK(entries[1].value.as_int == 1'700'000'000'000'009);
}

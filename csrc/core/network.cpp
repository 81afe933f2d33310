#include "network.hpp"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>

#include "utc_clock.hpp"

namespace vampires {
namespace {

constexpr int kBacklog = 64;

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

AddressList resolve(const std::string& host, std::uint16_t port, bool to_listen,
                    std::string& error) {
    addrinfo hints = {};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV | (to_listen ? AI_PASSIVE : 0);
    addrinfo* found = nullptr;
    const int failed = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
    if (failed != 0) error = "host '" + host + "': " + gai_strerror(failed);
    return {failed == 0 ? found : nullptr, &freeaddrinfo};
}

void set_option(const Descriptor& socket, int level, int option, int value) noexcept {
    setsockopt(socket.get(), level, option, &value, sizeof value);
}

// Bytes that wait in the kernel to be sent. Frames are better off in the camera's ring, where
// they are still in the processor's cache: megabytes in the kernel cost a third of the speed.
constexpr int kUnsent_bytes = 512 * 1024;

// A peer that vanished without a word is noticed in a few seconds, also while nothing is sent.
void set_up_connection(const Descriptor& socket) noexcept {
    set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, kUnsent_bytes);
    set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, 1);
    set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

PeerAddress address_of(const sockaddr_storage& from) {
    PeerAddress peer;
    char text[INET6_ADDRSTRLEN] = {};
    if (from.ss_family == AF_INET) {
        in_addr address;
        std::memcpy(&address,
                    reinterpret_cast<const char*>(&from) + offsetof(sockaddr_in, sin_addr),
                    sizeof address);
        peer.address[10] = peer.address[11] = 0xff;
        std::memcpy(peer.address.data() + 12, &address, sizeof address);
        inet_ntop(AF_INET, &address, text, sizeof text);
    } else if (from.ss_family == AF_INET6) {
        std::memcpy(peer.address.data(),
                    reinterpret_cast<const char*>(&from) + offsetof(sockaddr_in6, sin6_addr),
                    peer.address.size());
        inet_ntop(AF_INET6, peer.address.data(), text, sizeof text);
    }
    peer.text = text;
    if (peer.text.starts_with("::ffff:")) peer.text.erase(0, 7);
    return peer;
}

// Waits for a connection under way. 0, or the error it ended with.
int finish_connect(const Descriptor& socket, std::chrono::milliseconds timeout,
                   const WakeUp& wake) noexcept {
    pollfd waits[] = {{socket.get(), POLLOUT, 0}, {wake.fd(), POLLIN, 0}};
    const int ready = poll(waits, 2, static_cast<int>(timeout.count()));
    if (ready == 0) return ETIMEDOUT;
    if (ready < 0 || waits[1].revents != 0) return EINTR;
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    return error;
}

// A port of this computer at which nothing listens may be given to the very socket that asks
// for it, which then talks to itself.
bool talks_to_itself(const Descriptor& socket) noexcept {
    sockaddr_storage here = {};
    sockaddr_storage there = {};
    socklen_t here_bytes = sizeof here;
    socklen_t there_bytes = sizeof there;
    return getsockname(socket.get(), reinterpret_cast<sockaddr*>(&here), &here_bytes) == 0 &&
           getpeername(socket.get(), reinterpret_cast<sockaddr*>(&there), &there_bytes) == 0 &&
           here_bytes == there_bytes && std::memcmp(&here, &there, here_bytes) == 0;
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
    if (this != &other) {
        reset();
        fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
}

void Descriptor::reset() noexcept {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
}

WakeUp::WakeUp() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!fd_) throw std::system_error(errno, std::generic_category(), "eventfd");
}

void WakeUp::set() noexcept {
    const std::uint64_t one = 1;
    while (write(fd_.get(), &one, sizeof one) < 0 && errno == EINTR) continue;
}

bool WakeUp::is_set() const noexcept {
    return wait(std::chrono::milliseconds(0));
}

bool WakeUp::wait(std::chrono::milliseconds timeout) const noexcept {
    pollfd wait = {fd_.get(), POLLIN, 0};
    return poll(&wait, 1, static_cast<int>(timeout.count())) > 0;
}

bool is_within(const PeerAddress& peer, const std::vector<NetworkRange>& ranges) noexcept {
    return std::any_of(ranges.begin(), ranges.end(), [&](const NetworkRange& range) {
        for (unsigned bit = 0; bit < std::min(range.prefix, 128U); ++bit) {
            const unsigned mask = 0x80U >> (bit % 8);
            const unsigned differs = peer.address[bit / 8] ^ range.address[bit / 8];
            if ((differs & mask) != 0) return false;
        }
        return true;
    });
}

void Destination::look_up(std::string& error) {
    constexpr std::int64_t kLookAgain_ns = 60'000'000'000;
    const std::int64_t now_ns = monotonic_now_ns();
    if (!addresses_.empty() && now_ns - looked_up_ns_ < kLookAgain_ns) return;
    const AddressList found = resolve(host_, port_, false, error);
    looked_up_ns_ = monotonic_now_ns();
    if (!found) return;
    addresses_.clear();
    for (const addrinfo* at = found.get(); at != nullptr; at = at->ai_next) {
        Address address = {{}, at->ai_addrlen};
        std::memcpy(&address.where, at->ai_addr, at->ai_addrlen);
        addresses_.push_back(address);
    }
}

Descriptor Destination::connect(std::chrono::milliseconds timeout, const WakeUp& wake,
                                std::string& error) {
    look_up(error);
    for (const Address& address : addresses_) {
        const auto* where = reinterpret_cast<const sockaddr*>(&address.where);
        Descriptor socket(
            ::socket(where->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        int failed = socket ? 0 : errno;
        if (socket && ::connect(socket.get(), where, address.bytes) != 0) {
            failed = errno == EINPROGRESS ? finish_connect(socket, timeout, wake) : errno;
        }
        if (failed == 0 && talks_to_itself(socket)) failed = ECONNREFUSED;
        if (failed == 0) {
            set_up_connection(socket);
            looked_up_ns_ = monotonic_now_ns();  // they are right
            return socket;
        }
        error = std::strerror(failed);
        if (wake.is_set()) break;
    }
    return Descriptor();
}

Descriptor listen_at(const std::string& host, std::uint16_t port) {
    const std::string place = host + ":" + std::to_string(port);
    std::string unknown;
    const AddressList addresses = resolve(host, port, true, unknown);
    int failed = EADDRNOTAVAIL;
    for (const addrinfo* at = addresses.get(); at != nullptr; at = at->ai_next) {
        Descriptor socket(
            ::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (socket) {
            set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);  // after a restart
            if (at->ai_family == AF_INET6) set_option(socket, IPPROTO_IPV6, IPV6_V6ONLY, 0);
            if (bind(socket.get(), at->ai_addr, at->ai_addrlen) == 0 &&
                listen(socket.get(), kBacklog) == 0) {
                return socket;
            }
        }
        failed = errno;
    }
    throw std::system_error(failed, std::generic_category(), "cannot listen at " + place);
}

std::uint16_t local_port(const Descriptor& listening) noexcept {
    sockaddr_storage at = {};
    socklen_t length = sizeof at;
    getsockname(listening.get(), reinterpret_cast<sockaddr*>(&at), &length);
    in_port_t port = 0;
    std::memcpy(&port, reinterpret_cast<const char*>(&at) + offsetof(sockaddr_in, sin_port),
                sizeof port);  // at the same place in both families
    return ntohs(port);
}

Descriptor accept_from(const Descriptor& listening, PeerAddress& peer) noexcept {
    sockaddr_storage from = {};
    socklen_t length = sizeof from;
    Descriptor socket(accept4(listening.get(), reinterpret_cast<sockaddr*>(&from), &length,
                              SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) {
        peer = address_of(from);
        set_up_connection(socket);
    }
    return socket;
}

Health health_of(const Descriptor& connection) noexcept {
    constexpr std::uint32_t kPatience_ms = 900;
    constexpr std::uint32_t kMostUnanswered = 2;  // repeats or probes
    tcp_info info = {};
    socklen_t length = sizeof info;
    if (getsockopt(connection.get(), IPPROTO_TCP, TCP_INFO, &info, &length) != 0) {
        return Health::good;
    }
    // A receiver that is merely slow answers probes of its closed window; a cut cable does not.
    // When our own end of the cable is down nothing leaves, so nothing is unacknowledged: then
    // the kernel probes as well.
    const bool quiet = info.tcpi_last_ack_recv > kPatience_ms;
    const bool repeats = info.tcpi_unacked > 0 && info.tcpi_retransmits >= kMostUnanswered;
    const bool probes = info.tcpi_unacked == 0 && info.tcpi_probes >= kMostUnanswered;
    return quiet && (repeats || probes) ? Health::silent : Health::good;
}

std::uint64_t unacknowledged_bytes(const Descriptor& connection) noexcept {
    int bytes = 0;
    return ioctl(connection.get(), SIOCOUTQ, &bytes) == 0 && bytes > 0
               ? static_cast<std::uint64_t>(bytes)
               : 0;
}

}  // namespace vampires

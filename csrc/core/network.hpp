// Sockets of a link: TCP, never blocking, waited for together with a wish to stop.
#pragma once

#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace vampires {

// A file descriptor of its own.
class Descriptor {
  public:
    Descriptor() = default;
    explicit Descriptor(int fd) noexcept : fd_(fd) {}
    ~Descriptor() { reset(); }
    Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
    Descriptor& operator=(Descriptor&& other) noexcept;
    void reset() noexcept;
    int get() const noexcept { return fd_; }
    explicit operator bool() const noexcept { return fd_ >= 0; }

  private:
    int fd_ = -1;
};

// Set once, from any thread; then its descriptor is readable for good.
class WakeUp {
  public:
    WakeUp();  // std::system_error
    void set() noexcept;
    bool is_set() const noexcept;
    int fd() const noexcept { return fd_.get(); }
    // Waits so long; true when set.
    bool wait(std::chrono::milliseconds timeout) const noexcept;

  private:
    Descriptor fd_;
};

// An IPv6 address, or an IPv4 one in its IPv6 form, and the bits of it that count.
struct NetworkRange {
    std::array<std::uint8_t, 16> address{};
    unsigned prefix = 128;
};
struct PeerAddress {
    std::array<std::uint8_t, 16> address{};
    std::string text;  // as people write it, without the port
};
bool is_within(const PeerAddress& peer, const std::vector<NetworkRange>& ranges) noexcept;

// A host and port to connect to, again and again. Its addresses are kept: looking up a name
// may take long, above all while the cable is out.
class Destination {
  public:
    Destination(std::string host, std::uint16_t port) : host_(std::move(host)), port_(port) {}
    // Connects within the time for each address, or gives up, as it does when woken. What went
    // wrong is in error. The name is looked up at first, and once a minute while that fails.
    Descriptor connect(std::chrono::milliseconds timeout, const WakeUp& wake,
                       std::string& error);

  private:
    struct Address {
        sockaddr_storage where;
        socklen_t bytes;
    };
    void look_up(std::string& error);

    std::string host_;
    std::uint16_t port_;
    std::vector<Address> addresses_;
    std::int64_t looked_up_ns_ = 0;
};

// Listens at an address of this host. Throws std::system_error (taken, no such address).
Descriptor listen_at(const std::string& host, std::uint16_t port);
std::uint16_t local_port(const Descriptor& listening) noexcept;
// The next connection, none when there is none now.
Descriptor accept_from(const Descriptor& listening, PeerAddress& peer) noexcept;

enum class Health { good, silent };
// Whether the far end still answers: what was sent is unacknowledged for about a second, in
// spite of repeats, when it does not.
Health health_of(const Descriptor& connection) noexcept;
// Bytes given to send() that the far end's kernel has not acknowledged.
std::uint64_t unacknowledged_bytes(const Descriptor& connection) noexcept;

}  // namespace vampires

// The addresses that a worker may go to, and which of them to try first. It connects to none.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace refit {

// One address that the list stands for.
struct Candidate {
  // "host:port" or "unix:/path". Identifies the candidate.
  std::string address;
  // The name that its certificate must carry, if that is not the address's host.
  std::string server_name;
  // Its place in the list. All addresses of one name have the same place.
  size_t place = 0;
};

// Near are first the services of the worker's own zone, then those not yet asked for theirs, then the others; among
// equals, the place in the list decides, and chance between the addresses of one name, so that not all workers go to
// the same one. A candidate that failed rests: it is only tried when no other is left. Use it from one thread at a
// time.
class Candidates {
 public:
  using Clock = std::chrono::steady_clock;
  using Addresses = std::set<std::string>;

  // `zone`: the worker's. Empty: all are equally near.
  explicit Candidates(std::string zone) : zone_(std::move(zone)) {}

  // What is known of those that stay is kept.
  void Set(std::vector<Candidate> candidates);

  // In the order of the list.
  const std::vector<Candidate>& all() const { return all_; }
  // Without those in `except`: the nearest first, but those that rest at the end, beginning with the one that has
  // almost rested.
  std::vector<Candidate> InOrder(const Addresses& except, Clock::time_point now) const;
  // Those that do not rest and are nearer than this one, or may be.
  std::vector<Candidate> Nearer(const std::string& address, Clock::time_point now) const;
  bool IsNearer(const std::string& address, const std::string& than) const;
  // Whether no other may be nearer by its zone.
  bool IsOfOwnZone(const std::string& address) const;
  bool Rests(const std::string& address, Clock::time_point now) const;
  bool AllRest(Clock::time_point now) const;

  // Whether its zone has to be asked for.
  bool LacksZone(const std::string& address) const;
  void SetZone(const std::string& address, std::string zone);
  // It failed. It rests the longer, the sooner after its last rest that was.
  void LetRest(const std::string& address, Clock::time_point now);

 private:
  struct Known {
    std::optional<std::string> zone;
    Clock::time_point rests_until{};
    Clock::duration rest{0};
  };

  // Compares as nearness: less is nearer.
  std::pair<int, size_t> RankOf(const Candidate& candidate) const;
  const Candidate* Find(const std::string& address) const;
  const Known& KnownOf(const std::string& address) const;

  const std::string zone_;
  std::vector<Candidate> all_;
  std::map<std::string, Known> known_;
};

}  // namespace refit

#include "client/worker/candidates.h"

#include <algorithm>
#include <utility>

#include "absl/random/random.h"

namespace refit {
namespace {

constexpr std::chrono::seconds kFirstRest{2};
constexpr std::chrono::seconds kLongestRest{60};

}  // namespace

void Candidates::Set(std::vector<Candidate> candidates) {
  absl::BitGen random;
  std::shuffle(candidates.begin(), candidates.end(), random);
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.place < b.place; });
  all_ = std::move(candidates);
  std::map<std::string, Known> known;
  for (const Candidate& candidate : all_) known[candidate.address] = KnownOf(candidate.address);
  known_ = std::move(known);
}

std::vector<Candidate> Candidates::InOrder(const Addresses& except, Clock::time_point now) const {
  std::vector<Candidate> order;
  for (const Candidate& candidate : all_) {
    if (except.count(candidate.address) == 0) order.push_back(candidate);
  }
  const auto rests_until = [&](const Candidate& candidate) {
    const Clock::time_point until = KnownOf(candidate.address).rests_until;
    return until > now ? until : Clock::time_point{};
  };
  std::stable_sort(order.begin(), order.end(), [&](const Candidate& a, const Candidate& b) {
    return std::pair(rests_until(a), RankOf(a)) < std::pair(rests_until(b), RankOf(b));
  });
  return order;
}

std::vector<Candidate> Candidates::Nearer(const std::string& address, Clock::time_point now) const {
  std::vector<Candidate> nearer;
  for (const Candidate& candidate : InOrder({address}, now)) {
    if (!Rests(candidate.address, now) && IsNearer(candidate.address, address)) nearer.push_back(candidate);
  }
  return nearer;
}

bool Candidates::IsNearer(const std::string& address, const std::string& than) const {
  const Candidate* const a = Find(address);
  const Candidate* const b = Find(than);
  // One that its name does not lead to any more is the furthest.
  return a != nullptr && (b == nullptr || RankOf(*a) < RankOf(*b));
}

bool Candidates::IsOfOwnZone(const std::string& address) const {
  return zone_.empty() || KnownOf(address).zone == zone_;
}

bool Candidates::Rests(const std::string& address, Clock::time_point now) const {
  return KnownOf(address).rests_until > now;
}

bool Candidates::AllRest(Clock::time_point now) const {
  return std::all_of(all_.begin(), all_.end(), [&](const Candidate& one) { return Rests(one.address, now); });
}

bool Candidates::LacksZone(const std::string& address) const {
  return !zone_.empty() && !KnownOf(address).zone.has_value();
}

void Candidates::SetZone(const std::string& address, std::string zone) { known_[address].zone = std::move(zone); }

void Candidates::LetRest(const std::string& address, Clock::time_point now) {
  Known& known = known_[address];
  if (now < known.rests_until) return;  // told by another call
  const bool is_soon = now < known.rests_until + known.rest;
  known.rest = is_soon ? std::min<Clock::duration>(2 * known.rest, kLongestRest) : Clock::duration(kFirstRest);
  known.rests_until = now + known.rest;
}

std::pair<int, size_t> Candidates::RankOf(const Candidate& candidate) const {
  const std::optional<std::string>& zone = KnownOf(candidate.address).zone;
  const int by_zone = IsOfOwnZone(candidate.address) ? 0 : !zone.has_value() ? 1 : 2;
  return {by_zone, candidate.place};
}

const Candidate* Candidates::Find(const std::string& address) const {
  const auto found =
      std::find_if(all_.begin(), all_.end(), [&](const Candidate& one) { return one.address == address; });
  return found == all_.end() ? nullptr : &*found;
}

const Candidates::Known& Candidates::KnownOf(const std::string& address) const {
  static const Known kNothing;
  const auto known = known_.find(address);
  return known == known_.end() ? kNothing : known->second;
}

}  // namespace refit

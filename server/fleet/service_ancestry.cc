#include "server/fleet/service_ancestry.h"

#include <random>
#include <utility>
#include <vector>

namespace refit {
namespace {

// 64 random bits: unique, and never 0, for all practical purposes.
uint64_t NewLife() {
  std::random_device random;
  uint64_t life = 0;
  while (life == 0) life = (uint64_t{random()} << 32) | random();
  return life;
}

}  // namespace

ServiceAncestry::ServiceAncestry(std::string name, bool is_root) : is_root_(is_root) {
  own_.set_name(std::move(name));
  own_.set_life(NewLife());
}

v1::Ancestry ServiceAncestry::Get() const {
  absl::MutexLock lock(&mutex_);
  v1::Ancestry ancestry = above_.value_or(v1::Ancestry());
  ancestry.set_rooted(is_root_ || ancestry.rooted());
  *ancestry.add_services() = own_;
  return ancestry;
}

uint32_t ServiceAncestry::depth() const {
  const v1::Ancestry ancestry = Get();
  return ancestry.rooted() ? static_cast<uint32_t>(ancestry.services_size()) - 1 : 0;
}

void ServiceAncestry::SetAbove(std::optional<v1::Ancestry> above) {
  std::vector<std::function<void()>> observers;
  {
    absl::MutexLock lock(&mutex_);
    above_ = std::move(above);
    observers.reserve(observers_.size());
    for (const auto& [id, observer] : observers_) observers.push_back(observer);
  }
  for (const std::function<void()>& on_change : observers) on_change();
}

uint64_t ServiceAncestry::Observe(std::function<void()> on_change) {
  absl::MutexLock lock(&mutex_);
  observers_.emplace(next_observer_, std::move(on_change));
  return next_observer_++;
}

void ServiceAncestry::StopObserving(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  observers_.erase(id);
}

}  // namespace refit

#include "server/fleet/service_ancestry.h"

#include <utility>

#include "common/process/life.h"

namespace refit {

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
  {
    absl::MutexLock lock(&mutex_);
    above_ = std::move(above);
  }
  observers_.Tell();
}

}  // namespace refit

// Remembers where the tensors of the version in use are, as the base of the next pull.
#pragma once

#include <memory>
#include <vector>

#include "refit/buffer.h"
#include "refit/pull.h"
#include "refit/worker.h"

namespace refit {

// Keeps no tensor alive by itself, unless `keep`: if one of them is gone, there is no base. For one thread at a time.
class BaseInUse {
 public:
  explicit BaseInUse(bool keep) : keep_(keep) {}

  // Before `staged` is handed over to be installed, which may move its tensors away. Tensors in memory that somebody
  // else has provided are no base.
  void Remember(const StagedVersion& staged);
  // The remembered version is in use now.
  void Use();
  // There is none in use, or its bytes may have changed.
  void Forget() { in_use_ = {}; }

  // Null if there is none.
  std::shared_ptr<const PullBase> Get() const;

 private:
  struct Held {
    PullBase base;                              // without owners; version 0: there is none
    std::vector<std::weak_ptr<Buffer>> owners;  // of its tensors
    std::vector<std::shared_ptr<Buffer>> kept;  // the same, if they are kept
  };

  const bool keep_;
  Held remembered_;
  Held in_use_;
};

}  // namespace refit

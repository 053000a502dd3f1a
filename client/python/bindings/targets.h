// The caller's memory into which a pull receives.
#pragma once

#include <pybind11/pybind11.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/python/bindings/tensor.h"
#include "refit/box.h"
#include "refit/tensor_spec.h"

namespace refit::python {

// One buffer for each tensor, by name. Keeps the memory alive.
class Targets {
 public:
  void Add(const TensorPart& expected, const Lent& lent);
  bool empty() const { return targets_.empty(); }

  // INVALID_ARGUMENT, naming the first tensor of the version for which there is no buffer of its dtype and shape.
  absl::Status Check(const std::vector<TensorPart>& tensors) const;

  Tensor At(const TensorPart& part) const;

 private:
  struct Target {
    TensorSpec spec;
    absl::Span<std::byte> bytes;
    std::shared_ptr<const void> owner;
  };
  std::map<std::string, Target> targets_;
};

void BindTargets(pybind11::module_& module);

}  // namespace refit::python

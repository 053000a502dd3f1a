#include "client/python/bindings/targets.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/python/bindings/python_owner.h"

namespace refit::python {

void Targets::Add(const TensorPart& expected, const Lent& lent) {
  const auto address = reinterpret_cast<std::byte*>(lent.address);
  targets_[expected.tensor.name] = {expected.spec(), {address, lent.size}, OwnedBy(lent.owner)};
}

absl::Status Targets::Check(const std::vector<TensorPart>& tensors) const {
  for (const TensorPart& part : tensors) {
    const auto found = targets_.find(part.tensor.name);
    if (found == targets_.end()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", part.ToString(), ": `out` has none of this name"));
    }
    const TensorSpec& spec = found->second.spec;
    if (spec == part.spec()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", part.spec().ToString(), ": `out` has ", Name(spec.dtype), " ", ToString(spec.shape)));
  }
  return absl::OkStatus();
}

Tensor Targets::At(const TensorPart& part) const {
  const Target& target = targets_.at(part.tensor.name);
  return {part, target.bytes, target.owner};
}

void BindTargets(pybind11::module_& module) {
  pybind11::class_<Targets>(module, "Targets")
      .def(pybind11::init<>())
      .def("add", &Targets::Add, pybind11::arg("expected"), pybind11::arg("memory"));
}

}  // namespace refit::python

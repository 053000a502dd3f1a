#include "client/python/bindings/layout_rule.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/python/bindings/status_error.h"
#include "refit/layout_rule.h"

namespace refit::python {
namespace {

namespace py = pybind11;

const std::map<std::string, LayoutRule::Scope>& Scopes() {
  static const std::map<std::string, LayoutRule::Scope> scopes = {{"any", LayoutRule::Scope::kAny},
                                                                  {"experts", LayoutRule::Scope::kExperts},
                                                                  {"ordinary", LayoutRule::Scope::kOrdinary}};
  return scopes;
}

const std::map<std::string, Split>& Splits() {
  static const std::map<std::string, Split> splits = {{"balanced", Split::kBalanced}, {"ceil", Split::kCeil}};
  return splits;
}

template <typename Value>
std::string NameOf(const std::map<std::string, Value>& names, Value value) {
  const auto is_meant = [&](const auto& named) { return named.second == value; };
  return std::find_if(names.begin(), names.end(), is_meant)->first;
}

LayoutRule MakeRule(uint32_t dimension, uint64_t part, uint64_t parts, const std::string& pattern,
                    const std::string& scope, const std::string& split) {
  const std::map<std::string, LayoutRule::Scope>& scopes = Scopes();
  const std::map<std::string, Split>& splits = Splits();
  if (scopes.count(scope) == 0 || splits.count(split) == 0) {
    throw StatusError(absl::InvalidArgumentError(
        absl::StrCat("rule of scope '", scope, "' (any, experts, ordinary) and split '", split, "' (balanced, ceil)")));
  }
  return {scopes.at(scope), pattern, dimension, part, parts, splits.at(split)};
}

// The arguments of MakeRule.
py::tuple StateOfRule(const LayoutRule& rule) {
  return py::make_tuple(rule.dimension, rule.part, rule.parts, rule.pattern, NameOf(Scopes(), rule.scope),
                        NameOf(Splits(), rule.split));
}

LayoutRule RuleOfState(const py::tuple& state) {
  return MakeRule(state[0].cast<uint32_t>(), state[1].cast<uint64_t>(), state[2].cast<uint64_t>(),
                  state[3].cast<std::string>(), state[4].cast<std::string>(), state[5].cast<std::string>());
}

}  // namespace

void BindLayoutRule(py::module_& module) {
  py::class_<LayoutRule>(module, "Rule")
      .def(py::init(&MakeRule), py::kw_only(), py::arg("dimension"), py::arg("part"), py::arg("parts"),
           py::arg("pattern") = "", py::arg("scope") = "any", py::arg("split") = "balanced")
      .def("__repr__", [](const LayoutRule& rule) { return absl::StrCat("Rule(", rule.ToString(), ")"); })
      .def("__eq__", [](const LayoutRule& a, const LayoutRule& b) { return StateOfRule(a).equal(StateOfRule(b)); })
      .def(py::pickle(&StateOfRule, &RuleOfState));
}

}  // namespace refit::python

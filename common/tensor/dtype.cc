#include "refit/dtype.h"

#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/tensor/dtype_names.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

struct DTypeInfo {
  absl::string_view name;
  size_t size;
  bool castable;
  int packed_bits = 0;
};

// Indexed by the enumerator's value. Index 0 is unused.
constexpr DTypeInfo kInfos[] = {{"?", 0, false},
                                {"F64", 8, true},
                                {"F32", 4, true},
                                {"F16", 2, true},
                                {"BF16", 2, true},
                                {"F8_E4M3", 1, false},
                                {"F8_E5M2", 1, false},
                                {"I64", 8, false},
                                {"I32", 4, false},
                                {"I16", 2, false},
                                {"I8", 1, false},
                                {"U8", 1, false},
                                {"BOOL", 1, false},
                                {"U16", 2, false},
                                {"U32", 4, false},
                                {"U64", 8, false},
                                {"F8_E8M0", 1, false},
                                {"F8_E4M3FNUZ", 1, false},
                                {"F8_E5M2FNUZ", 1, false},
                                {"C64", 8, false},
                                {"F4_PACKED", 1, false, 4},
                                {"F6_E2M3_PACKED", 1, false, 6},
                                {"F6_E3M2_PACKED", 1, false, 6}};
static_assert(std::size(kInfos) == std::size(kAllDTypes) + 1);

const DTypeInfo& Info(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  return kInfos[index < std::size(kInfos) ? index : 0];
}

}  // namespace

size_t ElementSize(DType dtype) { return Info(dtype).size; }

int PackedBits(DType dtype) { return Info(dtype).packed_bits; }

bool IsNumber(DType dtype) { return dtype != DType::kC64 && PackedBits(dtype) == 0; }

absl::string_view Name(DType dtype) { return Info(dtype).name; }

bool IsCastable(DType dtype) { return Info(dtype).castable; }

absl::Status UnknownDType(absl::string_view got, absl::string_view (*name_of)(DType)) {
  const auto append_name = [name_of](std::string* out, DType dtype) { absl::StrAppend(out, name_of(dtype)); };
  return absl::InvalidArgumentError(
      absl::StrCat("unknown dtype \"", Printable(got), "\"; known are ", absl::StrJoin(kAllDTypes, ", ", append_name)));
}

absl::StatusOr<DType> ParseDType(absl::string_view name) {
  for (DType dtype : kAllDTypes) {
    if (absl::EqualsIgnoreCase(name, Name(dtype))) return dtype;
  }
  return UnknownDType(name, Name);
}

absl::StatusOr<DType> DTypeFromWire(int value) {
  for (DType dtype : kAllDTypes) {
    if (static_cast<int>(dtype) == value) return dtype;
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown dtype value ", value, "; expected 1 (F64) to ",
                                                 std::size(kAllDTypes), " (",
                                                 Name(kAllDTypes[std::size(kAllDTypes) - 1]), ")"));
}

}  // namespace refit

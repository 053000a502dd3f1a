#include "client/cli/verify.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/adapters/gemma4_moe_state_dict_adapter.h"
#include "common/adapters/plan.h"
#include "common/tensor/kernels.h"

namespace refit::cli {
namespace {

// Native bytes that are converted at once: small enough that the same memory is used again and again.
constexpr uint64_t kSlabBytes = 16 << 20;

// Row-major index of an element, "[3, 0, 17]".
std::string ElementPosition(const Shape& shape, uint64_t element) {
  Shape position(shape.size());
  for (size_t i = shape.size(); i-- > 0;) {
    position[i] = static_cast<int64_t>(element) % shape[i];
    element /= static_cast<uint64_t>(shape[i]);
  }
  return ToString(position);
}

// One element: its bits, most significant first, and its value.
std::string ElementText(DType dtype, const std::byte* element) {
  std::string bits;
  for (size_t i = ElementSize(dtype); i-- > 0;) absl::StrAppendFormat(&bits, "%02x", std::to_integer<int>(element[i]));
  return absl::StrFormat("0x%s (%.9g)", bits, ElementAsDouble(dtype, element, 0));
}

// DATA_LOSS, naming the first element that differs, unless tensor bytes [offset, ...) are as expected.
absl::Status CompareBytes(const TensorSpec& tensor, uint64_t offset, absl::Span<const std::byte> received,
                          absl::Span<const std::byte> expected) {
  if (received.size() != expected.size()) {
    return absl::DataLossError(absl::StrCat("tensor ", Printable(tensor.name), ": ", received.size(), " bytes came, ",
                                            expected.size(), " were expected"));
  }
  if (received.empty() || std::memcmp(received.data(), expected.data(), received.size()) == 0) return absl::OkStatus();
  const auto first = std::mismatch(received.begin(), received.end(), expected.begin()).first - received.begin();
  const uint64_t size = ElementSize(tensor.dtype);
  const uint64_t element = static_cast<uint64_t>(first) / size;
  return absl::DataLossError(absl::StrCat("tensor ", Printable(tensor.name), ": element ",
                                          ElementPosition(tensor.shape, offset / size + element), " is ",
                                          ElementText(tensor.dtype, received.data() + element * size), ", expected ",
                                          ElementText(tensor.dtype, expected.data() + element * size)));
}

class TorchVerifier : public Verifier {
 public:
  TorchVerifier(std::shared_ptr<const NativeSource> source, ConvertOptions options, VersionPlan plan)
      : source_(std::move(source)), options_(std::move(options)), plan_(std::move(plan)) {
    for (size_t i = 0; i < plan_.outputs.size(); ++i) output_by_name_[plan_.outputs[i].planned.hf.name] = i;
  }

  absl::Status CheckManifest(const std::vector<TensorSpec>& tensors, bool whole) override;
  absl::Status CheckTensor(const TensorSpec& tensor, absl::Span<const std::byte> bytes) override;

 private:
  absl::Status ConvertAndCompare(const TensorSpec& tensor, size_t native_index, absl::Span<const std::byte> bytes);
  bool SplitsByRows(size_t native_index) const;

  std::shared_ptr<const NativeSource> source_;
  ConvertOptions options_;
  VersionPlan plan_;
  std::map<std::string, size_t> output_by_name_;
  Gemma4MoEStateDictAdapter adapter_{Gemma4MoeConfig()};
  std::vector<std::byte> scratch_;
  // What the native tensor that was converted last gave besides: a scale, which follows its projection.
  std::map<std::string, std::vector<std::byte>> remembered_;
};

absl::Status TorchVerifier::CheckManifest(const std::vector<TensorSpec>& tensors, bool whole) {
  if (whole && tensors.size() != plan_.outputs.size()) {
    return absl::DataLossError(absl::StrCat("the version has ", tensors.size(), " tensors, ", plan_.outputs.size(),
                                            " were expected of the native tensors given"));
  }
  size_t next = 0;
  for (const TensorSpec& tensor : tensors) {
    const auto found = output_by_name_.find(tensor.name);
    if (found == output_by_name_.end()) {
      return absl::DataLossError(
          absl::StrCat("tensor ", Printable(tensor.name), " does not come from the native tensors given"));
    }
    const TensorSpec& expected = plan_.outputs[found->second].planned.hf;
    if (tensor != expected) {
      return absl::DataLossError(
          absl::StrCat("the version has tensor ", tensor.ToString(), ", expected is ", expected.ToString()));
    }
    if (found->second < next) {
      return absl::DataLossError(absl::StrCat("tensor ", Printable(tensor.name), " is out of order"));
    }
    next = found->second + 1;
  }
  return absl::OkStatus();
}

absl::Status TorchVerifier::CheckTensor(const TensorSpec& tensor, absl::Span<const std::byte> bytes) {
  const auto remembered = remembered_.find(tensor.name);
  if (remembered != remembered_.end()) return CompareBytes(tensor, 0, bytes, remembered->second);
  const auto output = output_by_name_.find(tensor.name);
  if (output == output_by_name_.end()) {
    return absl::DataLossError(absl::StrCat("tensor ", Printable(tensor.name), " is not expected"));
  }
  remembered_.clear();
  return ConvertAndCompare(tensor, plan_.outputs[output->second].native_index, bytes);
}

// Whether converting a tensor is converting its rows (dimension 0) and putting the results one after the other.
bool TorchVerifier::SplitsByRows(size_t native_index) const {
  const TensorSpec& native = plan_.native[native_index];
  if (native.ByteSize() == 0 || native.shape.empty()) return false;
  const std::vector<size_t>& outputs = plan_.outputs_of_native[native_index];
  return native.shape.size() >= 3 || std::all_of(outputs.begin(), outputs.end(), [&](size_t i) {
           return plan_.outputs[i].planned.transform == Transform::kPass;
         });
}

absl::Status TorchVerifier::ConvertAndCompare(const TensorSpec& tensor, size_t native_index,
                                              absl::Span<const std::byte> bytes) {
  const TensorSpec& native = plan_.native[native_index];
  const bool split = SplitsByRows(native_index);
  const uint64_t rows = split ? static_cast<uint64_t>(native.shape[0]) : 1;
  const uint64_t row_bytes = native.ByteSize() / rows;
  const uint64_t rows_at_once = split ? std::max<uint64_t>(1, kSlabBytes / row_bytes) : 1;
  uint64_t compared = 0;
  for (uint64_t row = 0; row < rows; row += rows_at_once) {
    const uint64_t count = std::min(rows_at_once, rows - row);
    TensorSpec slab = native;
    if (split) slab.shape[0] = static_cast<int64_t>(count);
    if (!source_->is_resident()) scratch_.resize(std::max<size_t>(scratch_.size(), count * row_bytes));
    const absl::Span<const std::byte> slab_bytes =
        source_->Read(native_index, row * row_bytes, count * row_bytes, absl::MakeSpan(scratch_));
    const absl::StatusOr<TypedTensor> on_bytes = TensorOnBytes(slab, slab_bytes, source_);
    if (!on_bytes.ok()) return on_bytes.status();
    const absl::StatusOr<StateDict> converted = adapter_.convert_single_tensor_to_hf(native.name, *on_bytes, options_);
    if (!converted.ok()) return converted.status();
    for (const auto& [name, value] : *converted) {
      const absl::StatusOr<absl::Span<const std::byte>> expected = BytesOf(value);
      if (!expected.ok()) return expected.status();
      if (name != tensor.name) {
        std::vector<std::byte>& other = remembered_[name];
        other.insert(other.end(), expected->begin(), expected->end());
        continue;
      }
      const absl::Status status = CompareBytes(
          tensor, compared, bytes.subspan(std::min<size_t>(compared, bytes.size()), expected->size()), *expected);
      if (!status.ok()) return status;
      compared += expected->size();
    }
  }
  if (compared == bytes.size()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("tensor ", Printable(tensor.name), ": ", bytes.size(), " bytes came, ", compared, " were expected"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Verifier>> Verifier::Create(std::shared_ptr<const NativeSource> source,
                                                           std::optional<DType> dtype,
                                                           const std::string& exclude_key_regex) {
  ConvertOptions options;
  options.dtype = dtype;
  if (!exclude_key_regex.empty()) {
    absl::StatusOr<std::shared_ptr<const PythonRegex>> exclude = PythonRegex::Compile(exclude_key_regex);
    if (!exclude.ok()) return exclude.status();
    options.exclude = *std::move(exclude);
  }
  absl::StatusOr<VersionPlan> plan = PlanVersion(Gemma4MoeAdapter(), source->tensors(), options);
  if (!plan.ok()) return plan.status();
  return std::make_unique<TorchVerifier>(std::move(source), std::move(options), *std::move(plan));
}

}  // namespace refit::cli

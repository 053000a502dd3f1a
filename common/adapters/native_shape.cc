#include "common/adapters/native_shape.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "common/adapters/family_inverse.h"
#include "common/adapters/size_expression.h"

namespace refit {
namespace {

using Dimensions = std::vector<std::optional<int64_t>>;

// The shape of the part of the native tensor that the output is made of.
Shape PartShape(const FamilyRule& rule, const OutputRule& output, Shape hf) {
  if (rule.each_expert) hf.insert(hf.begin(), 1);
  if (hf.size() < 2) return hf;
  if (output.transform == Transform::kTransposeLastTwo) std::swap(hf[hf.size() - 1], hf[hf.size() - 2]);
  if (output.transform == Transform::kFirstToLast) std::rotate(hf.begin(), hf.end() - 1, hf.end());
  return hf;
}

class Solver {
 public:
  Solver(const FamilyRule& rule, std::optional<int64_t> experts) : rule_(rule), experts_(experts) {}

  absl::StatusOr<Shape> Run(absl::Span<const RulePiece> pieces) {
    std::vector<const TensorSpec*> first(rule_.outputs.size());
    for (const RulePiece& piece : pieces) {
      if (first[piece.output] == nullptr) first[piece.output] = piece.hf;
    }
    const TensorSpec& some = *pieces.front().hf;
    const std::optional<size_t> rank = rule_.rank.has_value() ? rule_.rank : RankOf(first);
    if (!rank.has_value()) return Unknown(some);
    dimensions_.resize(*rank);
    if (rule_.each_expert) {
      dimensions_[0] = 0;
      for (const RulePiece& piece : pieces) dimensions_[0] = std::max(*dimensions_[0], piece.expert.value_or(0) + 1);
    } else if (rule_.experts && experts_.has_value() && *rank > 0) {
      dimensions_[0] = experts_;
    }
    for (size_t i = 0; i < first.size(); ++i) {
      if (first[i] != nullptr) Take(rule_.outputs[i], first[i]->shape);
    }
    TakeSlices(first);
    for (size_t round = 0; round < *rank; ++round) SolveShapes(first);
    Shape shape;
    for (const std::optional<int64_t>& dimension : dimensions_) {
      if (!dimension.has_value()) return Unknown(some);
      shape.push_back(*dimension);
    }
    return shape;
  }

 private:
  std::optional<size_t> RankOf(const std::vector<const TensorSpec*>& first) const {
    for (size_t i = 0; i < first.size(); ++i) {
      if (first[i] == nullptr || rule_.outputs[i].transform == Transform::kOnes) continue;
      return NativeRank(rule_, rule_.outputs[i], first[i]->shape.size());
    }
    return std::nullopt;
  }

  // The dimensions that are the part's. Those that are cut come later.
  void Take(const OutputRule& output, const Shape& hf) {
    if (output.transform == Transform::kOnes || !output.shape.empty()) return;
    const Shape part = PartShape(rule_, output, hf);
    for (size_t d = 0; d < part.size() && d < dimensions_.size(); ++d) {
      if (output.slice.has_value() && output.slice->dimension == d) continue;
      if (output.pad.has_value() && output.pad->dimension == d) continue;  // how much of it are zeros is not known
      if (!dimensions_[d].has_value()) dimensions_[d] = part[d];
    }
  }

  // A dimension that is cut into slices is their sum.
  void TakeSlices(const std::vector<const TensorSpec*>& first) {
    for (size_t d = 0; d < dimensions_.size(); ++d) {
      if (dimensions_[d].has_value()) continue;
      int64_t sum = 0;
      int64_t largest = 0;
      int64_t missing = 0;
      for (size_t i = 0; i < first.size(); ++i) {
        const OutputRule& output = rule_.outputs[i];
        if (!output.slice.has_value() || output.slice->dimension != d) continue;
        if (first[i] == nullptr) {
          ++missing;
          continue;
        }
        const Shape part = PartShape(rule_, output, first[i]->shape);
        if (d >= part.size()) continue;
        largest = std::max(largest, part[d]);
        sum = Sum(sum, part[d]);
        dimensions_[d] = sum;
      }
      for (; missing > 0 && dimensions_[d].has_value(); --missing) dimensions_[d] = Sum(*dimensions_[d], largest);
    }
  }

  // Files may claim any size; the rule then refuses it.
  static int64_t Sum(int64_t a, int64_t b) { return a > INT64_MAX - b ? INT64_MAX : a + b; }

  void SolveShapes(const std::vector<const TensorSpec*>& first) {
    for (size_t i = 0; i < first.size(); ++i) {
      const OutputRule& output = rule_.outputs[i];
      if (first[i] == nullptr || first[i]->shape.size() != output.shape.size()) continue;
      for (size_t d = 0; d < output.shape.size(); ++d) {
        const auto solved = SolveSize(output.shape[d], first[i]->shape[d], dimensions_);
        if (solved.has_value()) dimensions_[solved->first] = solved->second;
      }
    }
  }

  absl::Status Unknown(const TensorSpec& hf) const {
    const bool helps = rule_.experts && !experts_.has_value();
    return absl::InvalidArgumentError(absl::StrCat("tensor ", hf.ToString(),
                                                   " does not tell the shape of the native tensor that it is part of",
                                                   helps ? "; say how many experts the model has" : ""));
  }

  const FamilyRule& rule_;
  const std::optional<int64_t> experts_;
  Dimensions dimensions_;
};

}  // namespace

absl::StatusOr<Shape> NativeShape(const FamilyRule& rule, absl::Span<const RulePiece> pieces,
                                  std::optional<int64_t> experts) {
  return Solver(rule, experts).Run(pieces);
}

}  // namespace refit

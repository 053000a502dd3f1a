// A model family's adapter, as data: which tensors a trainer's native ones become. family_reader.h reads it from TOML,
// family_adapter.h makes an adapter of it. families/README.md explains the form.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/adapters/plan.h"

namespace refit {

// What a name must have. A regex is searched, with Python's meaning.
struct NameMatcher {
  enum class Kind { kPrefix, kSuffix, kContains, kExact, kRegex };
  Kind kind = Kind::kExact;
  std::string text;
};

// A size in terms of the native tensor's dimensions, such as "d2/2" or "d0*d1".
using SizeExpression = std::string;

// A run of one dimension of the native tensor.
struct SliceRule {
  size_t dimension = 0;
  SizeExpression begin;
  SizeExpression size;
};

// Zeros behind a dimension, up to a multiple.
struct PadRule {
  size_t dimension = 0;
  int64_t multiple = 1;
};

// One of the tensors that a rule makes.
struct OutputRule {
  std::string to;                    // takes the place of the text that the rule has found, or is the whole name
  std::optional<std::string> parts;  // then `to` is the whole name, with this regex's groups
  std::string needs;                 // what it is that `parts` finds, for messages
  std::string native;                // with `parts`: the native name, with groups of the HF name; empty: unknown
  std::optional<SliceRule> slice;    // unset: the whole tensor, or the whole expert
  Transform transform = Transform::kPass;
  std::vector<SizeExpression> shape;  // of the result; empty: as it comes
  std::optional<PadRule> pad;
};

// What becomes of native tensors whose name matches.
struct FamilyRule {
  std::string where;                                     // "file:line", for messages
  std::vector<NameMatcher> when;                         // all of them; the last one's text is replaced
  std::map<std::string, std::vector<std::string>> only;  // options that must have one of these values
  std::optional<size_t> rank;                            // of the native tensor
  bool other_ranks_pass = false;                         // or else they are an error
  bool experts = false;                                  // dimension 0 counts experts
  bool each_expert = false;                              // the outputs are made for each of them, without dimension 0
  std::optional<SizeExpression> width;                   // the width of an expert
  std::vector<OutputRule> outputs;                       // none: the tensor is left out
  std::map<std::string, std::string> variables;          // besides the family's
};

// What becomes of the names of outputs.
struct RenameRule {
  std::string where;
  NameMatcher find;
  std::string to;
  std::string back;  // a regex: only HF names in which it is found are renamed back; empty: all that have `to`
  std::map<std::string, std::vector<std::string>> only;
};

// A choice that the trainer's configuration makes. The first value holds unless another is asked for.
struct FamilyOption {
  struct Value {
    std::string name;
    std::map<std::string, std::string> variables;  // what {name} stands for in texts
  };
  std::string name;
  std::string help;
  std::vector<Value> values;
};

// How a family is recognised.
struct FamilySigns {
  std::vector<std::string> all;   // regexes: each is found in some name
  std::vector<std::string> none;  // in no name
  std::string unsure;             // why somebody must say it; empty: it is sure
};

struct Family {
  enum class ExcludeStage { kNative, kHf, kNever };

  std::string name;
  std::string title;
  std::vector<std::string> models;  // published models that it was checked with
  std::string engines;              // inference engines that take its tensors
  std::string not_covered;
  std::vector<FamilyOption> options;
  std::map<std::string, std::string> variables;
  ExcludeStage exclude = ExcludeStage::kHf;
  bool exclude_searches = false;        // anywhere in the name, not only from its beginning
  std::vector<std::string> f32;         // regexes in HF names: floating-point tensors become F32
  std::vector<std::string> keep_dtype;  // regexes in HF names: never cast to the version's dtype
  std::vector<FamilyRule> rules;        // the first that fits makes the outputs
  std::vector<RenameRule> renames;      // each in turn, on each output
  std::optional<FamilySigns> signs;     // unset: never recognised
};

// "native", "hf", "never".
absl::string_view ExcludeStageName(Family::ExcludeStage stage);

}  // namespace refit

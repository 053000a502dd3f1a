// Reads JSON of the form {tensor: {field: [integers], ...}, ...}, the metadata of files with shards. Private to
// common/safetensors.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/safetensors/strict_json.h"
#include "refit/shape.h"

namespace refit {

// Walks through tensors and their fields. A derived class defines the fields and stores their values.
class TensorFieldsReader : public StrictJsonReader {
 public:
  bool start_object(size_t) override {
    if (place_ != Place::kStart && place_ != Place::kTop) return Unexpected("an object");
    place_ = place_ == Place::kStart ? Place::kTop : Place::kTensor;
    return true;
  }

  bool key(string_t& key) override {
    if (place_ == Place::kTensor) return StartField(key);
    tensor_ = key;
    return StartTensor() || FailTensor("is there twice");
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor || Numbers() == nullptr) return Unexpected("an array");
    place_ = Place::kArray;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kArray || value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return StrictJsonReader::number_unsigned(value);
    }
    Shape& numbers = *Numbers();
    if (numbers.size() == kMaxRank) return FailTensor(TooMany());
    numbers.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool end_object() override {
    const bool ok = place_ != Place::kTensor || EndTensor();
    place_ = Place::kTop;
    return ok;
  }

 protected:
  enum class Place { kStart, kTop, kTensor, kArray };

  // False if there was already a tensor of that name.
  virtual bool StartTensor() = 0;
  // Fails for an unknown or a repeated field.
  virtual bool StartField(const std::string& key) = 0;
  // Where the field's numbers are stored; null if it has none.
  virtual Shape* Numbers() = 0;
  // The error for a field with more than kMaxRank numbers.
  virtual std::string TooMany() const = 0;
  // Fails if a field is missing.
  virtual bool EndTensor() = 0;

  Place place() const { return place_; }
  const std::string& tensor() const { return tensor_; }
  bool FailTensor(absl::string_view message) { return Fail(absl::StrCat("tensor ", Quoted(tensor_), ": ", message)); }

 private:
  Place place_ = Place::kStart;
  std::string tensor_;
};

}  // namespace refit

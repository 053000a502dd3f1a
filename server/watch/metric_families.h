// Builds what prometheus-cpp serves.
#pragma once

#include <prometheus/metric_family.h>

#include <string>
#include <utility>
#include <vector>

namespace refit {

// Not thread-safe.
class MetricFamilies {
 public:
  using Labels = std::vector<prometheus::ClientMetric::Label>;

  // One metric, of which there is a sample for each combination of labels. Outlived by its MetricFamilies.
  class Family {
   public:
    void Add(double value, Labels labels = {}) const {
      prometheus::MetricFamily& family = all_->families_[index_];
      prometheus::ClientMetric& metric = family.metric.emplace_back();
      metric.label = std::move(labels);
      (family.type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    }

   private:
    friend class MetricFamilies;
    Family(MetricFamilies* all, size_t index) : all_(all), index_(index) {}
    MetricFamilies* all_;
    size_t index_;
  };

  // One without samples is served too, so that what exists can be seen before anything has happened.
  Family Gauge(std::string name, std::string help) {
    return Describe({std::move(name), std::move(help), prometheus::MetricType::Gauge, {}});
  }
  Family Counter(std::string name, std::string help) {
    return Describe({std::move(name), std::move(help), prometheus::MetricType::Counter, {}});
  }

  std::vector<prometheus::MetricFamily> Take() { return std::move(families_); }

 private:
  Family Describe(prometheus::MetricFamily family) {
    families_.push_back(std::move(family));
    return {this, families_.size() - 1};
  }

  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace refit

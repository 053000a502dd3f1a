// Files and folders for tests.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace refit {

// A folder that is removed with its contents at the end.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "refit-test-XXXXXX").string();
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string Path(const std::string& name) const { return path_ + "/" + name; }

  // Writes a temporary file and renames it, so that readers never see half of it. Returns the path.
  std::string Write(const std::string& name, const std::string& contents, mode_t mode = S_IRUSR | S_IWUSR) const {
    const std::string path = Path(name);
    std::ofstream(path + ".new", std::ios::binary) << contents;
    EXPECT_EQ(chmod((path + ".new").c_str(), mode), 0);
    EXPECT_EQ(std::rename((path + ".new").c_str(), path.c_str()), 0);
    return path;
  }

 private:
  std::string path_;
};

}  // namespace refit

# Functions and flags for the targets of this project.
include(GNUInstallDirs)

set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()

# Paths in the project are hashed relative to it: another clone finds what this one has compiled.
find_program(REFIT_CCACHE ccache)
if(REFIT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} ${REFIT_CCACHE})
endif()

# Flags for all our targets, and includes by the path from the top folder. Dependencies' headers are system headers, so
# they cause no warnings.
add_library(refit_flags INTERFACE)
target_include_directories(refit_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(refit_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wno-missing-field-initializers)
if(REFIT_WERROR)
  # GCC takes the inline storage of Abseil's vectors, and with sanitizers std::optional's, for uninitialised.
  target_compile_options(refit_flags INTERFACE -Werror $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
endif()
if(REFIT_SANITIZE)
  target_compile_options(refit_flags INTERFACE -fsanitize=${REFIT_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(refit_flags INTERFACE -fsanitize=${REFIT_SANITIZE})
endif()
if(REFIT_SANITIZE MATCHES "thread")
  include(RefitThreadSanitizer)
endif()
if(REFIT_COVERAGE)
  target_compile_options(refit_flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(refit_flags INTERFACE --coverage)
endif()

# refit_library(<name> SOURCES ... [DEPS ...] [PRIVATE_DEPS ...] [STANDARD 17|20])
# A static library refit_<name> with the alias refit::<name>. Those who link it see the public headers, as
# #include <refit/...>, and no others.
function(refit_library name)
  cmake_parse_arguments(ARG "" "STANDARD" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  if(NOT ARG_STANDARD)
    set(ARG_STANDARD 20)
  endif()
  add_library(refit_${name} STATIC ${ARG_SOURCES})
  add_library(refit::${name} ALIAS refit_${name})
  set_target_properties(refit_${name} PROPERTIES EXPORT_NAME ${name} CXX_STANDARD ${ARG_STANDARD} CXX_STANDARD_REQUIRED ON)
  target_include_directories(refit_${name} PUBLIC
    "$<BUILD_INTERFACE:${refit_public_folders}>" $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(refit_${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS} $<BUILD_INTERFACE:refit_flags>)
  if(REFIT_SANITIZE OR REFIT_COVERAGE)
    target_link_libraries(refit_${name} PUBLIC $<BUILD_INTERFACE:refit_flags>)
  endif()
endfunction()

# refit_executable(<target> OUTPUT <file name> SOURCES ... DEPS ...)
function(refit_executable target)
  cmake_parse_arguments(ARG "" "OUTPUT" "SOURCES;DEPS" ${ARGN})
  add_executable(${target} ${ARG_SOURCES})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${ARG_OUTPUT} CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  target_link_libraries(${target} PRIVATE ${ARG_DEPS} refit_flags)
endfunction()

# refit_test(<name> SOURCES ... DEPS ... [STANDARD 17|20] [LABELS ...] [TIMEOUT seconds])
# One GoogleTest executable, one CTest test. Sources that need paths include test_paths.h: only they are compiled anew in
# another folder, and ccache has the others.
configure_file(${CMAKE_CURRENT_LIST_DIR}/test_paths.h.in ${PROJECT_BINARY_DIR}/tests/include/test_paths.h)
function(refit_test name)
  cmake_parse_arguments(ARG "" "STANDARD;TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT ARG_STANDARD)
    set(ARG_STANDARD 20)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES CXX_STANDARD ${ARG_STANDARD} CXX_STANDARD_REQUIRED ON
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  target_include_directories(${name} PRIVATE ${PROJECT_BINARY_DIR}/tests/include)
  # It compiles a fifth faster than -O2 does, and tests run once.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main refit_flags)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

# The headers that the library promises, as #include <refit/...>: each area's include folder, and two that are made here.
# Sets refit_public_headers to their names, and refit_public_folders to where
# they are. Each includes public headers only; tests/consumer compiles it alone.
set(refit_public_headers)
set(refit_public_folders ${PROJECT_BINARY_DIR}/include)
foreach(area common client server)
  file(GLOB_RECURSE found RELATIVE ${PROJECT_SOURCE_DIR}/${area}/include CONFIGURE_DEPENDS
    ${PROJECT_SOURCE_DIR}/${area}/include/refit/*.h)
  list(APPEND refit_public_headers ${found})
  list(APPEND refit_public_folders ${PROJECT_SOURCE_DIR}/${area}/include)
endforeach()
list(APPEND refit_public_headers refit/version.h)
list(SORT refit_public_headers)

set(refit_includes ${refit_public_headers})
list(FILTER refit_includes EXCLUDE REGEX ^refit/torch/)
list(TRANSFORM refit_includes REPLACE "(.+)" "#include <\\1>  // IWYU pragma: export")
list(JOIN refit_includes "\n" refit_includes)
configure_file(${CMAKE_CURRENT_LIST_DIR}/refit.h.in ${PROJECT_BINARY_DIR}/include/refit/refit.h @ONLY)
configure_file(${CMAKE_CURRENT_LIST_DIR}/version.h.in ${PROJECT_BINARY_DIR}/include/refit/version.h @ONLY)
list(APPEND refit_public_headers refit/refit.h)

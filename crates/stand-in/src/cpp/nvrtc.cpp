// NVRTC: "compiles" a program to the path of the library that was translated from it, in this library's folder.

#include <dlfcn.h>

#include <string>

struct Source {
    std::string name, image;
};

API int nvrtcVersion(int *major, int *minor) {
    *major = 12;
    *minor = 8;
    return 0;
}
API int nvrtcGetNumSupportedArchs(int *count) {
    *count = 2;
    return 0;
}
API int nvrtcGetSupportedArchs(int *known) {
    known[0] = 80;
    known[1] = 90;
    return 0;
}
API int nvrtcCreateProgram(Source **program, const char *, const char *name, int, const char *const *, const char *const *) {
    std::string file = name;
    for (char &c : file)
        if (c == ' ') c = '-';
    *program = new Source{file, ""};
    return 0;
}
API int nvrtcCompileProgram(Source *program, int, const char *const *) {
    Dl_info own;
    if (!dladdr((void *)&nvrtcVersion, &own)) return 6;
    std::string path = own.dli_fname;
    program->image = "EMULATED " + path.substr(0, path.rfind('/') + 1) + program->name + ".so";
    return 0;
}
API int nvrtcGetProgramLogSize(Source *, size_t *size) {
    *size = 1;
    return 0;
}
API int nvrtcGetProgramLog(Source *, char *log) {
    *log = 0;
    return 0;
}
API int nvrtcGetCUBINSize(Source *program, size_t *size) {
    *size = program->image.size() + 1;
    return 0;
}
API int nvrtcGetCUBIN(Source *program, char *image) {
    memcpy(image, program->image.c_str(), program->image.size() + 1);
    return 0;
}
API int nvrtcDestroyProgram(Source **program) {
    delete *program;
    *program = nullptr;
    return 0;
}

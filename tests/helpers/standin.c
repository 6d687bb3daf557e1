/* A CUDA driver without a GPU: memory is the host's, and kernels are run by a function that the test registers. A stream does its work
   as late as it may, when it is waited for: what does not wait where it should meets old values, and junk where memory was freed or
   filled anew. What a driver leaves undefined, or refuses in some cases only, is refused. STANDIN_DEVICES, STANDIN_DRIVER, STANDIN_SM,
   STANDIN_MULTIPROCESSORS and STANDIN_MEMORY say what it claims to be;
   STANDIN_FAULT=cuName:code makes calls of cuName fail with that code, for ever when code is 700 or more. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long P;
typedef int (*launcher)(const char *name, unsigned *dims, void *params, size_t bytes, unsigned shared);
static launcher run;
static long used, launches, graph_launches, copies_in, copies_out;
static int lost;
static __thread int depth; /* of the stack of contexts */
static int drain(long last);

void standin_set_launch(launcher f) { run = f; }
long standin_count(int what) {
    drain(-1);
    long counts[] = {launches, graph_launches, copies_in, copies_out, used};
    return counts[what];
}
static long setting(const char *name, long otherwise) {
    char *text = getenv(name);
    return text ? atol(text) : otherwise;
}
static int fault(const char *name) {
    char *text = getenv("STANDIN_FAULT"), *colon = text ? strchr(text, ':') : 0;
    if (lost) return lost;
    if (!colon || strlen(name) != (size_t)(colon - text) || strncmp(text, name, colon - text)) return 0;
    int code = atoi(colon + 1);
    if (code >= 700) lost = code;
    return code;
}
#define CALL { int failed = fault(__func__); if (failed) return failed; }
#define HERE { CALL if (!depth) return 201; } /* needs a context */
/* What was asked of contexts, streams and modules, a line for each call: its name, and two of its arguments. */
static char trace[1 << 16];
static size_t traced;
const char *standin_trace(void) { trace[traced] = 0; traced = 0; return trace; }
#define NOTE(a, b) { if (traced < sizeof trace - 99) traced += sprintf(trace + traced, "%s %lx %lx\n", __func__, (long)(a), (long)(b)); }
/* Waiting is nothing that a graph could do later: it spoils the capture. */
#define WAIT(last) { HERE if (capturing) { spoilt = 1; return 900; } return drain(last); }

int cuInit(unsigned flags) { CALL return setting("STANDIN_DEVICES", 1) ? 0 : 100; }
int cuDriverGetVersion(int *v) { *v = setting("STANDIN_DRIVER", 13000); return 0; }
int cuGetErrorString(int code, const char **s) {
    *s = code == 1 ? "invalid argument" : code == 2 ? "out of memory" : code == 100 ? "no CUDA-capable device is detected"
       : code == 218 ? "a PTX JIT compilation failed" : code == 500 ? "named symbol not found"
       : code == 719 ? "unspecified launch failure" : code == 801 ? "operation not supported" : "an error";
    return 0;
}
int cuDeviceGetCount(int *n) { *n = setting("STANDIN_DEVICES", 1); return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return i < setting("STANDIN_DEVICES", 1) ? 0 : 101; }
int cuDeviceGetName(char *s, int n, int d) { snprintf(s, n, "stand-in %d", d); return 0; }
int cuDeviceComputeCapability(int *a, int *b, int d) { int sm = setting("STANDIN_SM", 90); *a = sm / 10; *b = sm % 10; return 0; }
int cuDeviceTotalMem_v2(size_t *b, int d) { *b = setting("STANDIN_MEMORY", 1L << 34); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) {
    int sm = setting("STANDIN_SM", 90);
    *v = a == 75 ? sm / 10 : a == 76 ? sm % 10 : a == 16 ? setting("STANDIN_MULTIPROCESSORS", 132) : a == 97 ? 232448 : a == 10 ? 32 : 1024;
    return 0;
}

struct step { void *f; unsigned dims[6], shared; void *params; size_t bytes; P to, from; long *counts; struct step *next; };
struct graph { struct step *first, **last; };
static struct graph *capturing;
static int spoilt;

static __thread void *stack[64];
static char primary[16][8];
int cuDevicePrimaryCtxRetain(void **c, int d) { CALL NOTE(d, 0) *c = primary[d]; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { NOTE(d, 0) return 0; }
int cuCtxPushCurrent_v2(void *c) { stack[depth++] = c; return 0; }
int cuCtxPopCurrent_v2(void **c) { if (!depth) return 201; --depth; if (c) *c = stack[depth]; return 0; }
int cuCtxGetCurrent(void **c) { *c = depth ? stack[depth - 1] : 0; return 0; }
int cuCtxGetDevice(int *d) { *d = 0; return 0; }
int cuCtxDetach(void *c) { return 0; }
int cuCtxAttach(void **c, unsigned f) { *c = depth ? stack[depth - 1] : 0; return 0; }
int cuCtxGetApiVersion(void *c, unsigned *v) { *v = 13000; return 0; }
int cuCtxSynchronize(void) { NOTE(0, 0) WAIT(-1) }

/* A header stands before the memory, in a list of all. What is allocated is full of junk. */
struct block { size_t bytes; struct block *next, **back; };
static struct block *blocks;
int standin_blocks(P *starts, size_t *sizes, int most) {
    int count = 0;
    for (struct block *b = blocks; b; b = b->next, count++)
        if (count < most) { starts[count] = (P)b + 256; sizes[count] = b->bytes; }
    return count;
}
int cuMemAlloc_v2(P *p, size_t n) {
    HERE
    if (used + (long)n > setting("STANDIN_MEMORY", 1L << 34)) return 2;
    char *raw = aligned_alloc(256, 256 + (n + 255) / 256 * 256);
    struct block *made = (struct block *)raw;
    *made = (struct block){n, blocks, &blocks};
    if (blocks) blocks->back = &made->next;
    blocks = made;
    memset(raw + 256, 0xAB, n);
    used += n;
    *p = (P)(raw + 256);
    return 0;
}
static int inside(P p, size_t n) {
    for (struct block *b = blocks; b; b = b->next)
        if ((P)b + 256 <= p && p + n <= (P)b + 256 + b->bytes) return 1;
    return 0;
}
int cuMemFree_v2(P p) {
    if (!depth) return 201;
    drain(-1);
    struct block *b = (struct block *)(p - 256);
    used -= b->bytes;
    *b->back = b->next;
    if (b->next) b->next->back = b->back;
    free(b);
    return 0;
}
int cuPointerGetAttribute(int *v, int a, P p) {
    for (struct block *b = blocks; b; b = b->next)
        if ((P)b + 256 <= p && p < (P)b + 256 + b->bytes) { *v = a == 2 ? 2 : 0; return 0; }
    return 1;
}
int cuMemHostAlloc(void **p, size_t n, unsigned f) {
    HERE
    size_t *made = malloc(n + 64);
    *made = n;
    *p = (char *)made + 64;
    return 0;
}
int cuMemFreeHost(void *p) { /* what still reads it gets junk */
    size_t *made = (size_t *)((char *)p - 64);
    memset(p, 0xCD, *made);
    return 0;
}
int cuMemGetInfo_v2(size_t *a, size_t *b) { HERE *b = setting("STANDIN_MEMORY", 1L << 34); *a = *b - used; return 0; }
int cuMemcpyHtoD_v2(P d, const void *s, size_t n) { HERE ++copies_in; memcpy((void *)d, s, n); return 0; }
int cuMemcpyDtoH_v2(void *d, P s, size_t n) { HERE ++copies_out; memcpy(d, (void *)s, n); return 0; }

/* Linking: what comes out is called a cubin, and holds the PTX. */
struct link { char *text; };
int cuLinkCreate_v2(unsigned n, int *options, void **values, struct link **made) { HERE *made = calloc(1, sizeof **made); return 0; }
int cuLinkAddData_v2(struct link *l, int type, char *data, size_t bytes, char *name, unsigned n, int *options, void **values) {
    HERE
    if (type != 1 || !bytes || data[bytes - 1]) return 1; /* PTX ends in a zero */
    if (strstr(data, "STANDIN_REFUSES")) return 218;
    l->text = malloc(bytes + 8);
    sprintf(l->text, "\177ELF%s", data);
    return 0;
}
int cuLinkComplete(struct link *l, void **cubin, size_t *bytes) {
    HERE
    NOTE(0, 0)
    *cubin = l->text;
    *bytes = strlen(l->text) + 1;
    return 0;
}
int cuLinkDestroy(struct link *l) { free(l->text); free(l); return 0; }
int cuModuleLoadDataEx(void **m, const char *image, unsigned n, int *options, void **values) {
    HERE
    NOTE(*image == '\177', 0) /* a cubin */
    if (strstr(image, "STANDIN_REFUSES")) {
        for (unsigned i = 0; i < n; i++) /* CU_JIT_ERROR_LOG_BUFFER is 5, its size 6 */
            if (options[i] == 5) strcpy(values[i], "ptxas: line 1; error: unknown opcode");
        for (unsigned i = 0; i < n; i++) if (options[i] == 6) values[i] = (void *)36;
        for (unsigned i = 0; i < n; i++) if (options[i] == 4) values[i] = 0;
        return 218;
    }
    for (unsigned i = 0; i < n; i++) if (options[i] == 4 || options[i] == 6) values[i] = 0;
    *m = strdup(image);
    return 0;
}
int cuModuleUnload(void *m) { drain(-1); free(m); return 0; }
struct function { char name[256]; int most_shared; };
int cuModuleGetFunction(void **f, void *m, const char *name) {
    char text[512];
    snprintf(text, sizeof text, ".entry %s(", name);
    if (!strstr(m, text)) return 500;
    struct function *made = malloc(sizeof *made);
    snprintf(made->name, sizeof made->name, "%s", name);
    made->most_shared = 48 << 10;
    *f = made;
    return 0;
}
int cuFuncGetAttribute(int *v, int a, void *f) { *v = a == 4 ? 32 : a == 0 ? 1024 : 0; return 0; }
int cuFuncSetAttribute(struct function *f, int a, int v) {
    if (a != 8 || v > 227 << 10) return 1; /* the most of dynamic shared memory */
    f->most_shared = v;
    return 0;
}

/* A stream's memory says whether it waits for the default one; an event's, how much work had been given when it was recorded. */
static long given;
int cuStreamCreate(void **s, unsigned f) { HERE *s = calloc(1, 8); *(unsigned *)*s = f; NOTE(*s, f) return 0; }
int cuStreamDestroy_v2(void *s) { drain(-1); free(s); return 0; }
int cuStreamSynchronize(void *s) { NOTE(s, 0) WAIT(-1) }
int cuStreamQuery(void *s) { return 0; }
int cuStreamWaitEvent(void *s, void *e, unsigned f) { HERE NOTE(s, e) return 0; }
int cuEventCreate(void **s, unsigned f) { HERE *s = calloc(1, sizeof(long)); return 0; }
int cuEventDestroy_v2(void *s) { free(s); return 0; }
int cuEventRecord(long *e, void *s) { HERE NOTE(e, s) *e = given; return 0; }
int cuEventSynchronize(long *e) { WAIT(*e) }
int cuEventQuery(void *e) { return 0; }
int cuEventElapsedTime_v2(float *t, void *a, void *b) { *t = 1.0f; return 0; }
int cuEventElapsedTime(float *t, void *a, void *b) { *t = 1.0f; return 0; }

/* A tensor map: what the driver asks of its arguments, and the words that the emulator's tile copies read. */
int cuTensorMapEncodeTiled(P *map, int type, unsigned rank, P address, const P *sizes, const P *strides, const unsigned *box,
                           const unsigned *steps, int interleave, int swizzle, int promotion, int fill) {
    static const int bytes[] = {1, 2, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4}, most[] = {1 << 20, 32, 64, 128};
    CALL
    if (type < 0 || type > 12 || interleave || swizzle < 0 || swizzle > 3 || promotion < 0 || promotion > 3) return 1;
    if ((P)map % 64 || rank != 3 || address % 16 || fill < 0 || fill > 1) return 1; /* the emulator knows three axes alone */
    for (unsigned i = 0; i < rank; i++) {
        if (!sizes[i] || sizes[i] > 1ULL << 32 || !box[i] || box[i] > 256 || !steps[i] || steps[i] > 8) return 1;
        if (i && (strides[i - 1] % 16 || strides[i - 1] >= 1ULL << 40)) return 1;
    }
    if (box[0] * bytes[type] % 16 || (int)(box[0] * bytes[type]) > most[swizzle]) return 1;
    if (type > 1 || swizzle != 3 || box[2] != 1) return 801; /* other maps are not emulated */
    P words[16] = {address, sizes[0], sizes[1], sizes[2], strides[0], strides[1], box[0], box[1], bytes[type]};
    memcpy(map, words, sizeof words);
    return 0;
}

/* One of pixels: the same, and that corners are of a byte, and the words that pixel copies read. */
int cuTensorMapEncodeIm2col(P *map, int type, unsigned rank, P address, const P *sizes, const P *strides, const int *lower,
                            const int *upper, unsigned channels, unsigned pixels, const unsigned *steps, int interleave,
                            int swizzle, int promotion, int fill) {
    CALL
    if (type != 1 || interleave || swizzle != 3 || promotion < 0 || promotion > 3) return 801; /* other maps are not emulated */
    if ((P)map % 64 || rank != 4 || address % 16 || fill < 0 || fill > 1 || steps[0] != 1 || steps[3] != 1) return 1;
    for (unsigned i = 0; i < rank; i++) {
        if (!sizes[i] || sizes[i] > 1ULL << 32 || !steps[i] || steps[i] > 8) return 1;
        if (i && (strides[i - 1] % 16 || strides[i - 1] >= 1ULL << 40)) return 1;
    }
    for (int i = 0; i < 2; i++)
        if (lower[i] < -128 || lower[i] > 127 || upper[i] < -128 || upper[i] > 127 ||
            (long long)sizes[1 + i] + upper[i] <= lower[i]) return 1;
    if (!channels || channels * 2 % 16 || channels * 2 > 128 || !pixels || pixels > 1024) return 1;
    P words[16] = {address, sizes[0], sizes[1], sizes[2], sizes[3], strides[0], strides[1], strides[2], lower[0], lower[1],
                   upper[0], upper[1], steps[1], steps[2], (P)pixels << 32 | channels, 2};
    memcpy(map, words, sizeof words);
    return 0;
}

/* Work, that of a stream or of a graph: copies and launches with their parameters. */
static struct graph queue = {0, &queue.first};
static long taken;
static void add(struct graph *g, struct step s) {
    struct step *made = malloc(sizeof s);
    *made = s;
    if (s.f) { made->params = malloc(s.bytes); memcpy(made->params, s.params, s.bytes); }
    made->next = 0;
    *g->last = made;
    g->last = &made->next;
}
static int take(struct step *s) {
    if (s->counts) ++*s->counts;
    if (!s->f) { memmove((void *)s->to, (void *)s->from, s->bytes); return 0; }
    ++launches;
    return run ? run(s->f, s->dims, s->params, s->bytes, s->shared) : 719;
}
/* Does what was given up to number `last`, or all. A kernel that fails takes the context with it. */
static int drain(long last) {
    while (queue.first && (last < 0 || taken < last)) {
        struct step *s = queue.first;
        queue.first = s->next;
        if (!queue.first) queue.last = &queue.first;
        ++taken;
        if (!lost) lost = take(s);
        if (s->f) free(s->params);
        free(s);
    }
    return lost;
}
static int give(struct step s) {
    if (!capturing) ++given;
    add(capturing ? capturing : &queue, s);
    return 0;
}
int cuStreamBeginCapture_v2(unsigned *stream, int mode) {
    HERE
    NOTE(stream, mode)
    if (*stream != 1) return 900; /* of a stream that waits for the default one: who uses that meanwhile spoils it, and fails */
    capturing = malloc(sizeof *capturing);
    capturing->first = 0;
    capturing->last = &capturing->first;
    spoilt = 0;
    return 0;
}
int cuStreamEndCapture(void *stream, void **g) {
    *g = spoilt ? 0 : capturing;
    capturing = 0;
    return spoilt ? 901 : 0;
}
int cuGraphInstantiateWithFlags(void **e, void *g, unsigned long long f) { HERE *e = ((struct graph *)g)->first; return 0; }
int cuGraphDestroy(void *g) { free(g); return 0; }
int cuGraphExecDestroy(void *e) {
    for (struct step *s = e, *next; s; s = next) { next = s->next; if (s->f) free(s->params); free(s); }
    return 0;
}
int cuGraphLaunch(void *e, void *stream) {
    HERE
    NOTE(stream, 0)
    ++graph_launches;
    for (struct step *s = e; s; s = s->next) give(*s);
    return 0;
}
struct node { void *f; unsigned grid[3], block[3], shared; void **params, **extra; };
int cuStreamGetCaptureInfo_v2(void *stream, int *status, P *id, void **graph, void ***nodes, size_t *count) {
    static void *last;
    if (!capturing) return 1;
    last = (char *)capturing->last - offsetof(struct step, next);
    *status = 1; *graph = capturing; *nodes = &last; *count = 1;
    return 0;
}
int cuGraphKernelNodeGetParams(struct step *s, struct node *n) {
    if (!s->f) return 1;
    *n = (struct node){s->f, {s->dims[0], s->dims[1], s->dims[2]}, {s->dims[3], s->dims[4], s->dims[5]}, s->shared};
    return 0;
}
int cuGraphExecKernelNodeSetParams(void *e, struct step *s, struct node *n) { /* steps are the graph's and the executable's */
    CALL
    if (s->f != n->f || n->extra[0] != (void *)1 || n->extra[2] != (void *)2 || *(size_t *)n->extra[3] != s->bytes) return 1;
    memcpy(s->params, n->extra[1], s->bytes);
    memcpy(s->dims, n->grid, sizeof n->grid);
    return 0;
}
int cuMemcpyDtoDAsync_v2(P d, P s, size_t n, void *st) {
    HERE
    NOTE(st, n)
    return inside(d, n) && inside(s, n) ? give((struct step){.to = d, .from = s, .bytes = n}) : 1;
}
int cuMemcpyHtoDAsync_v2(P d, const void *s, size_t n, void *st) {
    HERE
    NOTE(st, n)
    return inside(d, n) ? give((struct step){.to = d, .from = (P)s, .bytes = n, .counts = &copies_in}) : 1;
}
int cuMemcpyDtoHAsync_v2(void *d, P s, size_t n, void *st) {
    HERE
    NOTE(st, n)
    return inside(s, n) ? give((struct step){.to = (P)d, .from = s, .bytes = n, .counts = &copies_out}) : 1;
}
int cuLaunchKernel(struct function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **params, void **extra) {
    HERE
    NOTE(stream, gx)
    if (!gx || !gy || !gz || gx > 0x7fffffffu || gy > 65535 || gz > 65535 || bx * by * bz > 1024 || shared > f->most_shared) return 1;
    return give((struct step){f, {gx, gy, gz, bx, by, bz}, shared, extra[1], *(size_t *)extra[3]});
}

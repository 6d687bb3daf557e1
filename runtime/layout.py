"""The records that native code and Python share, as slot numbers of 8 bytes: the one source for both.

A compiled function's body is `i32 @run(ptr %frame)`.  The frame's slots are, in this order:

    FRAME_CTX     the call context (below), what kernels and `tcc_parallel` get as `%ctx`
    FRAME_ARENA   the arena's base, aligned to 64 bytes; null when the function needs no arena
    inputs        the data pointer of each input; a scalar input too is an address, whether an array or a number was given
    shared        the data pointer of each shared container, in the order of the entry's list
    kept          the data pointer of each container's panels that the function may read; null while these are stale
    outputs       the data pointer of each output; null for a late output until `tcc_output` has made it
    sizes         the value of each bound size, in the order in which `Frame.sizes` names them

`Frame` computes those slots.  `run` returns STATUS_OK, STATUS_ERROR (the context's error record says what) or STATUS_PYTHON
(a Python exception is set).  It may call, from the calling thread only, what codegen/support.py defines:

    void @tcc_parallel(ptr ctx, ptr body, ptr args, i64 units, i64 grain)
         ranges may run one after another on one thread, so none may wait for another; `thread` only picks the scratch
    i32  @tcc_poll(ptr ctx)                            STATUS_PYTHON once interrupted: return it at once.  Gives up the GIL in a call that lasts
    i32  @tcc_host_call(ptr ctx, ptr args, i64 index)  a status; see runtime/host.py for `args`
    ptr  @tcc_output(ptr ctx, i64 output, i64 typenum, i64 rank, ptr dims)   null: return STATUS_PYTHON
    i32  @tcc_grant(ptr ctx, i64 claim, i64 bytes)     STATUS_PYTHON if so much memory cannot be had
    ptr  @tcc_late_alloc(ptr ctx, i64 claim, i64 bytes)   memory until the call ends; null: return STATUS_PYTHON
    void @tcc_late_release(ptr ctx, ptr mark)          gives back what came since CTX_LATE_USED was `mark`
    void @tcc_fail(ptr ctx, i64 op, i64 a, i64 b, i64 c, i64 d)   the first error of a call stays; from any thread
"""

from __future__ import annotations

from typing import NamedTuple

from tcc.ir import knobs

STATUS_OK, STATUS_ERROR, STATUS_PYTHON = 0, 1, 2

# The call context.
CTX_POOL = 0  # the thread pool
CTX_THREADS = 1  # for this call
CTX_SCRATCH = 2  # thread t's scratch is at base + t * CTX_SCRATCH_BYTES
CTX_SCRATCH_BYTES = 3
CTX_ERROR = 4  # op id (0: none), then four integers
CTX_THREAD_STATE = 9  # Python's thread state while the GIL is released, else null
CTX_NEXT_POLL = 10  # nanoseconds on the coarse clock; 0 before the first poll
CTX_RECORD = 11  # the function's record
CTX_OBJECTS = 12  # Python list of the call's object values, or null
CTX_OUTPUTS = 13  # array of the output arrays (PyObject*)
CTX_LATE_USED = 14  # the late blocks that this call uses, the newest first
CTX_LATE_FREE = 15  # those that it may use: one bag of the function's
CTX_FUNCTION = 16  # the function, a Python object
CTX_SLOTS = 18

# The frame.
FRAME_CTX = 0
FRAME_ARENA = 1
FRAME_FIRST = 2

# The thread pool.  What different threads write is kept on different pairs of cache lines (16 slots).
POOL_BUSY = 0  # i32: 1 while a caller uses the workers
POOL_HOME = 1  # the caller's CPU at the last dispatch; no worker is pinned there
POOL_STARTED = 2  # 1 when the workers run
POOL_PENDING = 16  # i32 futex: pieces of the job that are not done
POOL_WAITER = 17  # i32: 1 while the caller sleeps on POOL_PENDING
POOL_BODY = 32
POOL_CTX = 33
POOL_ARGS = 34
POOL_UNITS = 35
POOL_TEAM = 36  # threads that share the job, the caller included
POOL_JOB = 37  # its number, of 32 bits
POOL_THREADS = 48  # the caller included
POOL_LIMIT = 49  # how many of them new calls ask for
POOL_SPIN_NS = 50  # how long a worker or the caller spins before it sleeps
POOL_STRICT = (
    51  # 1: as many threads as CPUs, one worker to a CPU; 0: anywhere but on the caller's CPU; -1: not pinned
)
POOL_STOP = 52  # 1: the workers are to end
POOL_MASK = 64  # the CPUs that may be used, one bit each
POOL_MASK_SLOTS = 16
POOL_WORKERS = (
    96  # the record of worker 0, the caller, who uses the claim alone; worker w follows at w * WORKER_SLOTS
)
WORKER_SLOTS = 32
WORKER_TURN = 0  # i32 futex: goes up by one for each job
WORKER_ASLEEP = 1  # i32
WORKER_POOL = 16
WORKER_INDEX = 17
WORKER_CPU = 18
WORKER_THREAD = 19  # pthread_t
WORKER_CLAIM = 20  # what is left of its pieces; see codegen/pool.py
POOL_BYTES = 8 * (POOL_WORKERS + knobs.MAX_THREADS * WORKER_SLOTS)

# A shared variable's container.
SHARED_DATA = 0
SHARED_LOCK = 1  # 0 free, n > 0 readers, -1 a writer; changed only with the GIL held
SHARED_CLAIMS = 2  # low half: Python code that holds the container; high half: writers that wait, whom readers let go first
SHARED_VERSION = 3  # goes up when the contents may have changed
SHARED_DIMS = 4

# Panels of a shared variable, which are kept from call to call (runtime/panels.py).
PANELS_DATA = 0
PANELS_VERSION = 1  # the container's, of which they are; -1: none
PANELS_SEEN = 2  # the container's at the last call that found them stale
PANELS_CALLS = 3  # how many more such calls there will be until they are to be made; -1: they are not
PANELS_SLOTS = 4

# The compiled function, a CPython object: after the head (two slots) come these.
OBJECT_VECTORCALL = 2
OBJECT_RECORD = 3
OBJECT_BYTES = 32

# A compiled variant's record.
RECORD_API = 0  # table of addresses, below
RECORD_POOL = 1
RECORD_ARENA = 2  # free list of arena blocks, linked
RECORD_HOST = 3  # Python callable behind tcc_host_call
RECORD_CHECKED = (
    4  # so many bytes a call may take, outputs included, without asking whether there is that much memory
)
RECORD_WANTED_ARENA = 5  # what the entry would need, left there when it gives up for lack of memory
RECORD_WANTED_TOTAL = 6
RECORD_LATE = (
    7  # free list of bags of late blocks; a call takes one bag, and gives it back with what it added
)
RECORD_ENTRY = 8  # the address of the variant's entry
RECORD_INPUTS = 9  # how many arguments it takes
RECORD_SHARED = 10  # containers' records from here on, then those of kept panels

# A block of working memory, of an arena or late: this header, and the memory 64 bytes after it.
BLOCK_NEXT = 0
BLOCK_CAPACITY = 1  # bytes after the header
BLOCK_BAG = 2  # in a bag's first block: the next bag
BLOCK_HEADER = 64

# Addresses of Python's and NumPy's things, which differ from one process to the next.
API_NDARRAY = 0
API_ARRAY_NEW = 1
API_NOT_IMPLEMENTED = 2
API_NONE = 3
API_LONG = 4  # type objects of Python's numbers
API_FLOAT = 5
API_SLOW = 6  # slow(function, args, kwargs)
API_RAISE = 7  # raise_error(function, record, op, a, b, c, d)
API_ADOPT = 8  # adopt(function, record, container, array)
API_GRANT = 9  # grant(function, record, claim, bytes)
API_LATE = 10  # late(function, record, claim, bytes, old) -> the address of a block of memory
API_DTYPES = 16  # for each dtype of DTYPES: its descriptor, then its scalar type

DTYPES = (
    "bool",
    "i8",
    "i16",
    "i32",
    "i64",
    "u8",
    "u16",
    "u32",
    "u64",
    "f16",
    "bf16",
    "f32",
    "f64",
    "c64",
    "c128",
)
API_SLOTS = API_DTYPES + 2 * len(DTYPES)

# What takes less memory than this, outputs included, does not ask how much there is.
UNCHECKED_BYTES = 64 << 20
# Sizes of memory are worked out up to here, where no address space reaches; what is more counts as this.
MOST_BYTES = 1 << 48

# Above this many estimated nanoseconds of work a call releases the GIL.
RELEASE_NS = 20_000


class Frame(NamedTuple):
    """The slots of one function's frame."""

    inputs: int
    shared: int  # with kept panels
    outputs: int
    sizes: tuple[str, ...] = ()

    def input(self, index: int) -> int:
        return FRAME_FIRST + index

    def container(self, index: int) -> int:
        """Kept panels stand behind the containers."""
        return FRAME_FIRST + self.inputs + index

    def output(self, index: int) -> int:
        return FRAME_FIRST + self.inputs + self.shared + index

    def size(self, name: str) -> int:
        """ValueError if `name` is not among `sizes`."""
        return FRAME_FIRST + self.inputs + self.shared + self.outputs + self.sizes.index(name)

    @property
    def slots(self) -> int:
        return FRAME_FIRST + self.inputs + self.shared + self.outputs + len(self.sizes)

/* Work of a known size for a tenant's lease, in a static program of a few kilobytes that needs nothing around it.

   probe SEED MS BITS TOUCH PROCESSES: so many processes each look for MS milliseconds for nonces whose
   SHA-256(SEED || process, 1 byte || nonce, 8 bytes big-endian) begins with BITS zero bits: whoever reads them knows how
   much work was done. Then TOUCH bytes of fresh memory are touched at random. Prints the mean ns of a touch, then a line
   for each process: "wall_ns cpu_ns nonce nonce ...". Made by script/probe. */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

#if defined(__x86_64__)
enum { WRITE = 1, MMAP = 9, FORK = 57, EXIT = 231, WAIT = 61, CLOCK = 228 };
static long call(long n, long a, long b, long c, long d, long e, long f) {
  long r;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return r;
}
__asm__(".globl _start\n_start:\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n");
#elif defined(__aarch64__)
enum { WRITE = 64, MMAP = 222, FORK = 220 /* clone */, EXIT = 94, WAIT = 260, CLOCK = 113 };
static long call(long n, long a, long b, long c, long d, long e, long f) {
  register long x8 __asm__("x8") = n;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}
__asm__(".globl _start\n_start:\n mov x0,sp\n bl begin\n");
#endif

static const u32 K[64] = {
  0x428a2f98,0x71374491,0xb5c0fbcf,0xe9b5dba5,0x3956c25b,0x59f111f1,0x923f82a4,0xab1c5ed5,0xd807aa98,0x12835b01,
  0x243185be,0x550c7dc3,0x72be5d74,0x80deb1fe,0x9bdc06a7,0xc19bf174,0xe49b69c1,0xefbe4786,0x0fc19dc6,0x240ca1cc,
  0x2de92c6f,0x4a7484aa,0x5cb0a9dc,0x76f988da,0x983e5152,0xa831c66d,0xb00327c8,0xbf597fc7,0xc6e00bf3,0xd5a79147,
  0x06ca6351,0x14292967,0x27b70a85,0x2e1b2138,0x4d2c6dfc,0x53380d13,0x650a7354,0x766a0abb,0x81c2c92e,0x92722c85,
  0xa2bfe8a1,0xa81a664b,0xc24b8b70,0xc76c51a3,0xd192e819,0xd6990624,0xf40e3585,0x106aa070,0x19a4c116,0x1e376c08,
  0x2748774c,0x34b0bcb5,0x391c0cb3,0x4ed8aa4a,0x5b9cca4f,0x682e6ff3,0x748f82ee,0x78a5636f,0x84c87814,0x8cc70208,
  0x90befffa,0xa4506ceb,0xbef9a3f7,0xc67178f2};

#define R(x, n) (((x) >> (n)) | ((x) << (32 - (n))))

/* The first word of SHA-256 of one block: all that a nonce is judged by. */
static u32 sha256(const u8 *block) {
  u32 h[8] = {0x6a09e667,0xbb67ae85,0x3c6ef372,0xa54ff53a,0x510e527f,0x9b05688c,0x1f83d9ab,0x5be0cd19}, s[8], w[64];
  for (int i = 0; i < 16; i++)
    w[i] = (u32)block[4*i] << 24 | (u32)block[4*i+1] << 16 | (u32)block[4*i+2] << 8 | block[4*i+3];
  for (int i = 16; i < 64; i++) {
    u32 a = w[i-15], b = w[i-2];
    w[i] = w[i-16] + (R(a,7) ^ R(a,18) ^ a >> 3) + w[i-7] + (R(b,17) ^ R(b,19) ^ b >> 10);
  }
  for (int i = 0; i < 8; i++) s[i] = h[i];
  for (int i = 0; i < 64; i++) {
    u32 t = s[7] + (R(s[4],6) ^ R(s[4],11) ^ R(s[4],25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i];
    u32 m = (R(s[0],2) ^ R(s[0],13) ^ R(s[0],22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    for (int j = 7; j > 0; j--) s[j] = s[j-1];
    s[4] += t;
    s[0] = t + m;
  }
  return h[0] + s[0];
}

static u64 now(long clock) {
  u64 t[2] = {0, 0};
  call(CLOCK, clock, (long)t, 0, 0, 0, 0);
  return t[0] * 1000000000ul + t[1];
}

enum { FOUND = 256, PROCESSES = 16 };

struct result {
  u64 wall, cpu, n, found[FOUND];
};

static char text[96 * 1024];
static u64 used;

static void print(u64 number, char end) {
  char digits[24];
  int n = 0;
  do digits[n++] = '0' + number % 10; while (number /= 10);
  while (n && used < sizeof text - 2) text[used++] = digits[--n];
  text[used++] = end;
}

static u64 number(const char *s) {
  u64 n = 0;
  while (*s >= '0' && *s <= '9') n = n * 10 + (*s++ - '0');
  return n;
}

static u64 touch(u64 size) { /* mean ns of a write to a random page */
  volatile u8 *memory = (volatile u8 *)call(MMAP, 0, size, 3, 0x22, -1, 0);
  u64 pages = size / 4096, x = 88172645463325252ul, began;
  if ((long)memory < 0 && (long)memory > -4096) return 0;
  for (u64 i = 0; i < pages; i++) memory[i * 4096] = 1;
  began = now(1);
  for (u64 i = 0; i < pages; i++) {
    x ^= x << 13; x ^= x >> 7; x ^= x << 17;
    memory[x % pages * 4096] += 1;
  }
  return (now(1) - began) / pages + 1;
}

static void work(struct result *out, const char *seed, int process, u64 ms, u64 bits) {
  u8 block[64];
  u64 length = 0, began = now(1), used_before = now(2); /* CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID */
  for (int i = 0; i < 64; i++) block[i] = 0;
  for (; seed[length] && length < 40; length++) block[length] = seed[length];
  block[length++] = process;
  block[length + 8] = 0x80;
  block[62] = (length + 8) * 8 >> 8, block[63] = (length + 8) * 8;
  for (u64 nonce = 0; nonce % 256 || now(1) - began < ms * 1000000; nonce++) {
    for (int i = 0; i < 8; i++) block[length + i] = nonce >> (56 - 8 * i);
    if (sha256(block) >> (32 - bits) == 0 && out->n < FOUND) out->found[out->n++] = nonce;
  }
  out->wall = now(1) - began, out->cpu = now(2) - used_before;
}

__attribute__((used)) void begin(u64 *stack) {
  char **argv = (char **)(stack + 1);
  struct result *results;
  u64 ms, bits, size, processes;
  if (stack[0] < 6) call(EXIT, 2, 0, 0, 0, 0, 0);
  ms = number(argv[2]), bits = number(argv[3]), size = number(argv[4]), processes = number(argv[5]);
  if (processes < 1 || processes > PROCESSES || bits < 1 || bits > 31) call(EXIT, 2, 0, 0, 0, 0, 0);
  results = (struct result *)call(MMAP, 0, PROCESSES * sizeof *results, 3, 0x21, -1, 0); /* shared, anonymous */
  for (u64 i = 1; i < processes; i++)
    if (call(FORK, 17 /* SIGCHLD */, 0, 0, 0, 0, 0) == 0) {
      work(&results[i], argv[1], i, ms, bits);
      call(EXIT, 0, 0, 0, 0, 0, 0);
    }
  work(&results[0], argv[1], 0, ms, bits);
  while (call(WAIT, -1, 0, 0, 0, 0, 0) > 0) {}
  print(size >= 4096 ? touch(size) : 0, '\n');
  for (u64 i = 0; i < processes; i++) {
    print(results[i].wall, ' '), print(results[i].cpu, results[i].n ? ' ' : '\n');
    for (u64 k = 0; k < results[i].n; k++) print(results[i].found[k], k + 1 < results[i].n ? ' ' : '\n');
  }
  for (u64 sent = 0; sent < used;) {
    long n = call(WRITE, 1, (long)text + sent, used - sent, 0, 0, 0);
    if (n <= 0) call(EXIT, 1, 0, 0, 0, 0, 0);
    sent += n;
  }
  call(EXIT, 0, 0, 0, 0, 0, 0);
}

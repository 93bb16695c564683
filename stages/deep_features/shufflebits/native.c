/* ShuffleBits on 32-bit words, any key. Bit i of a word goes to bit perm[i].

   A permutation of bits is linear: the cipher is the OR of what each of the word's 8 nibbles becomes.
   With AVX2, 32 words at a time: their bytes are gathered into four planes, byte j of the cipher is
   the OR of eight look-ups of 16 entries each, held in registers (pshufb: no address and no time
   depends on data or key), and the planes are put together again. Elsewhere, and for what is left
   over, look-ups in memory. */

#include <stddef.h>
#include <stdint.h>

#ifdef __AVX2__
#include <immintrin.h>

static size_t by_planes(const uint32_t *x, uint32_t *out, size_t n, const uint8_t *tables) {
  const __m256i group = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)); /* its own inverse */
  const __m256i low = _mm256_set1_epi8(15);
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    __m256i v[4], t[4], nibble[8], plane[4];
    for (int k = 0; k < 4; k++)
      v[k] = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(x + i + 8 * k)), group);
    t[0] = _mm256_unpacklo_epi32(v[0], v[1]);
    t[1] = _mm256_unpackhi_epi32(v[0], v[1]);
    t[2] = _mm256_unpacklo_epi32(v[2], v[3]);
    t[3] = _mm256_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm256_unpacklo_epi64(t[0], t[2]);
    v[1] = _mm256_unpackhi_epi64(t[0], t[2]);
    v[2] = _mm256_unpacklo_epi64(t[1], t[3]);
    v[3] = _mm256_unpackhi_epi64(t[1], t[3]);
    for (int k = 0; k < 4; k++) {
      nibble[2 * k] = _mm256_and_si256(v[k], low);
      nibble[2 * k + 1] = _mm256_and_si256(_mm256_srli_epi16(v[k], 4), low);
    }
    for (int j = 0; j < 4; j++) {
      const __m128i *table = (const __m128i *)tables + 8 * j;
      __m256i sum = _mm256_setzero_si256();
      for (int k = 0; k < 8; k++)
        sum = _mm256_or_si256(sum, _mm256_shuffle_epi8(
            _mm256_broadcastsi128_si256(_mm_loadu_si128(table + k)), nibble[k]));
      plane[j] = sum;
    }
    /* the transposition of the 4 x 4 dwords of each lane is its own inverse */
    t[0] = _mm256_unpacklo_epi32(plane[0], plane[1]);
    t[1] = _mm256_unpackhi_epi32(plane[0], plane[1]);
    t[2] = _mm256_unpacklo_epi32(plane[2], plane[3]);
    t[3] = _mm256_unpackhi_epi32(plane[2], plane[3]);
    v[0] = _mm256_unpacklo_epi64(t[0], t[2]);
    v[1] = _mm256_unpackhi_epi64(t[0], t[2]);
    v[2] = _mm256_unpacklo_epi64(t[1], t[3]);
    v[3] = _mm256_unpackhi_epi64(t[1], t[3]);
    for (int k = 0; k < 4; k++)
      _mm256_storeu_si256((__m256i *)(out + i + 8 * k), _mm256_shuffle_epi8(v[k], group));
  }
  return i;
}
#else
static size_t by_planes(const uint32_t *x, uint32_t *out, size_t n, const uint8_t *tables) {
  (void)x, (void)out, (void)n, (void)tables;
  return 0;
}
#endif

/* perm: 32 bytes, bit i goes to bit perm[i]. */
void shufflebits(const uint32_t *restrict x, uint32_t *restrict out, size_t n,
                 const uint8_t *restrict perm) {
  uint32_t becomes[8][16] = {{0}}; /* [nibble of the word][its value] */
  uint8_t tables[4 * 8 * 16];      /* the same, byte by byte of the cipher */
  for (int k = 0; k < 8; k++)
    for (int v = 0; v < 16; v++) {
      for (int b = 0; b < 4; b++)
        becomes[k][v] |= (uint32_t)(v >> b & 1) << perm[4 * k + b];
      for (int j = 0; j < 4; j++)
        tables[128 * j + 16 * k + v] = (uint8_t)(becomes[k][v] >> (8 * j));
    }
  /* words one by one up to an address that AVX2 stores whole, and those that are left at the end */
  size_t head = (-(uintptr_t)out & 31) / 4, i = 0;
  if (head > n)
    head = n;
  for (; i < n; i++) {
    if (i == head) {
      i += by_planes(x + head, out + head, n - head, tables);
      if (i == n)
        break;
    }
    uint32_t sum = 0;
    for (int k = 0; k < 8; k++)
      sum |= becomes[k][x[i] >> (4 * k) & 15];
    out[i] = sum;
  }
}

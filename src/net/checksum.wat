;; The sum of the Internet checksum (RFC 1071). Compiled to checksum.wasm.ts by `node scripts/wasm.ts`.
;;
;; sum(from, n): the ones' complement sum of n bytes at `from` in the window, taken as 16-bit
;; little-endian words, the last one padded with a zero byte; folded to 16 bits, not complemented.
;; The address may be odd.
(module
  (memory (import "sluice" "window") 65536 65536 shared)

  (func (export "sum") (param $from i32) (param $n i32) (result i32)
    (local $end i32)
    (local $total i64)
    (local $a v128)
    (local $b v128)
    (local $v v128)

    (block $vectorsDone
      (loop $part
        (br_if $vectorsDone (i32.lt_u (local.get $n) (i32.const 32)))
        ;; A turn adds at most 2 * 65535 to each 32-bit lane: no more than 2^15 turns at a time.
        (local.set $end
          (i32.add
            (local.get $from)
            (select
              (i32.const 0x80000)
              (i32.and (local.get $n) (i32.const -32))
              (i32.gt_u (local.get $n) (i32.const 0x80000)))))
        (local.set $n
          (i32.sub (local.get $n) (i32.sub (local.get $end) (local.get $from))))
        (local.set $a (v128.const i32x4 0 0 0 0))
        (local.set $b (v128.const i32x4 0 0 0 0))
        (loop $vectors
          (local.set $a
            (i32x4.add
              (local.get $a)
              (i32x4.extadd_pairwise_i16x8_u (v128.load align=1 (local.get $from)))))
          (local.set $b
            (i32x4.add
              (local.get $b)
              (i32x4.extadd_pairwise_i16x8_u (v128.load offset=16 align=1 (local.get $from)))))
          (local.set $from (i32.add (local.get $from) (i32.const 32)))
          (br_if $vectors (i32.ne (local.get $from) (local.get $end))))
        ;; widen before the lanes of both are added up
        (local.set $v
          (i64x2.add
            (i64x2.add
              (i64x2.extend_low_i32x4_u (local.get $a))
              (i64x2.extend_high_i32x4_u (local.get $a)))
            (i64x2.add
              (i64x2.extend_low_i32x4_u (local.get $b))
              (i64x2.extend_high_i32x4_u (local.get $b)))))
        (local.set $total
          (i64.add
            (local.get $total)
            (i64.add
              (i64x2.extract_lane 0 (local.get $v))
              (i64x2.extract_lane 1 (local.get $v)))))
        (br $part)))

    (block $wordsDone
      (loop $words
        (br_if $wordsDone (i32.lt_u (local.get $n) (i32.const 4)))
        (local.set $total (i64.add (local.get $total) (i64.load32_u align=1 (local.get $from))))
        (local.set $from (i32.add (local.get $from) (i32.const 4)))
        (local.set $n (i32.sub (local.get $n) (i32.const 4)))
        (br $words)))
    (if (i32.and (local.get $n) (i32.const 2))
      (then
        (local.set $total (i64.add (local.get $total) (i64.load16_u align=1 (local.get $from))))
        (local.set $from (i32.add (local.get $from) (i32.const 2)))))
    (if (i32.and (local.get $n) (i32.const 1))
      (then
        (local.set $total (i64.add (local.get $total) (i64.load8_u (local.get $from))))))

    ;; fold: 64 bits to 33, to 32, to 17, to 16
    (local.set $total
      (i64.add
        (i64.and (local.get $total) (i64.const 0xffffffff))
        (i64.shr_u (local.get $total) (i64.const 32))))
    (local.set $total
      (i64.add
        (i64.and (local.get $total) (i64.const 0xffff))
        (i64.shr_u (local.get $total) (i64.const 16))))
    (local.set $total
      (i64.add
        (i64.and (local.get $total) (i64.const 0xffff))
        (i64.shr_u (local.get $total) (i64.const 16))))
    (i32.wrap_i64
      (i64.add
        (i64.and (local.get $total) (i64.const 0xffff))
        (i64.shr_u (local.get $total) (i64.const 16))))))

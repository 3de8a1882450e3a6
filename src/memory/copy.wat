;; The copy of payload. Compiled to copy.wasm.ts by `node scripts/wasm.ts`.
;;
;; run(jobs, count): does `count` copies. A job is three u32 in the memory itself, at jobs + 12 i:
;; to, from, length, addresses in the window. The two ends of a job do not overlap.
;;
;; A frame table (`copy.ts`, FRAME_TABLE) holds, for up to 64 frames: where each begins, where its
;; header to deliver lies and how long that is, and how many bytes of the frame it stands for.
;;
;; gather(table, first, count, to, stride): copies the first 80 bytes of frames first … count - 1
;; to `to + stride * i`, always 80, whatever the frame's length. Stops at the first frame that does
;; not lie in the window and returns its index, or count.
;;
;; deliver(table, jobs, count): a job is two u32: where to, and which frame. Copies the header, then
;; the bytes that it does not stand for, behind it.
;;
;; Copies of up to 16 bytes: two overlapping words; up to 1024: 16-byte vectors and one overlapping tail;
;; above: memory.copy. (An overlapping tail has no loop for the odd bytes.)
(module
  (memory (import "sluice" "window") 65536 65536 shared)

  (func $copy (param $to i32) (param $from i32) (param $n i32)
    (local $end i32)
    (if (i32.gt_u (local.get $n) (i32.const 1024))
      (then
        (memory.copy (local.get $to) (local.get $from) (local.get $n))
        (return)))
    (if (i32.ge_u (local.get $n) (i32.const 16))
      (then
        ;; the last 16 bytes first: they overlap what the loop writes
        (v128.store
          (i32.sub (i32.add (local.get $to) (local.get $n)) (i32.const 16))
          (v128.load (i32.sub (i32.add (local.get $from) (local.get $n)) (i32.const 16))))
        (local.set $end (i32.add (local.get $from) (i32.and (local.get $n) (i32.const 0x7f0))))
        ;; 64 bytes a turn while there are so many
        (block $small
          (loop $wide
            (br_if $small (i32.lt_u (i32.sub (local.get $end) (local.get $from)) (i32.const 64)))
            (v128.store (local.get $to) (v128.load (local.get $from)))
            (v128.store offset=16 (local.get $to) (v128.load offset=16 (local.get $from)))
            (v128.store offset=32 (local.get $to) (v128.load offset=32 (local.get $from)))
            (v128.store offset=48 (local.get $to) (v128.load offset=48 (local.get $from)))
            (local.set $to (i32.add (local.get $to) (i32.const 64)))
            (local.set $from (i32.add (local.get $from) (i32.const 64)))
            (br $wide)))
        (block $done
          (loop $vector
            (br_if $done (i32.eq (local.get $from) (local.get $end)))
            (v128.store (local.get $to) (v128.load (local.get $from)))
            (local.set $to (i32.add (local.get $to) (i32.const 16)))
            (local.set $from (i32.add (local.get $from) (i32.const 16)))
            (br $vector)))
        (return)))
    (if (i32.ge_u (local.get $n) (i32.const 8))
      (then
        (i64.store
          (i32.sub (i32.add (local.get $to) (local.get $n)) (i32.const 8))
          (i64.load (i32.sub (i32.add (local.get $from) (local.get $n)) (i32.const 8))))
        (i64.store (local.get $to) (i64.load (local.get $from)))
        (return)))
    (if (i32.ge_u (local.get $n) (i32.const 4))
      (then
        (i32.store
          (i32.sub (i32.add (local.get $to) (local.get $n)) (i32.const 4))
          (i32.load (i32.sub (i32.add (local.get $from) (local.get $n)) (i32.const 4))))
        (i32.store (local.get $to) (i32.load (local.get $from)))
        (return)))
    (memory.copy (local.get $to) (local.get $from) (local.get $n)))

  (func (export "run") (param $jobs i32) (param $count i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $jobs) (i32.mul (local.get $count) (i32.const 12))))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $jobs) (local.get $end)))
        (call $copy
          (i32.load (local.get $jobs))
          (i32.load offset=4 (local.get $jobs))
          (i32.load offset=8 (local.get $jobs)))
        (local.set $jobs (i32.add (local.get $jobs) (i32.const 12)))
        (br $next))))

  (func (export "gather")
    (param $table i32) (param $i i32) (param $count i32) (param $to i32) (param $stride i32)
    (result i32)
    (local $address f64) (local $from i32)
    (local.set $table (i32.add (local.get $table) (i32.shl (local.get $i) (i32.const 3))))
    (local.set $to (i32.add (local.get $to) (i32.mul (local.get $i) (local.get $stride))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $address (f64.load (local.get $table)))
        (br_if $done (f64.ge (local.get $address) (f64.const 4292870144)))
        (local.set $from (i32.trunc_f64_u (local.get $address)))
        (v128.store (local.get $to) (v128.load (local.get $from)))
        (v128.store offset=16 (local.get $to) (v128.load offset=16 (local.get $from)))
        (v128.store offset=32 (local.get $to) (v128.load offset=32 (local.get $from)))
        (v128.store offset=48 (local.get $to) (v128.load offset=48 (local.get $from)))
        (v128.store offset=64 (local.get $to) (v128.load offset=64 (local.get $from)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (local.set $table (i32.add (local.get $table) (i32.const 8)))
        (local.set $to (i32.add (local.get $to) (local.get $stride)))
        (br $next)))
    (local.get $i))

  (func (export "deliver") (param $table i32) (param $jobs i32) (param $count i32)
    (local $end i32) (local $wide i32) (local $word i32) (local $to i32) (local $header i32) (local $skip i32)
    (local.set $end (i32.add (local.get $jobs) (i32.shl (local.get $count) (i32.const 3))))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $jobs) (local.get $end)))
        (local.set $to (i32.load (local.get $jobs)))
        (local.set $word (i32.load offset=4 (local.get $jobs)))
        (local.set $wide (i32.add (local.get $table) (i32.shl (local.get $word) (i32.const 3))))
        (local.set $word (i32.add (local.get $table) (i32.shl (local.get $word) (i32.const 2))))
        (local.set $header (i32.load offset=1280 (local.get $word)))
        (local.set $skip (i32.load offset=1536 (local.get $word)))
        (call $copy
          (local.get $to)
          (i32.trunc_f64_u (f64.load offset=512 (local.get $wide)))
          (local.get $header))
        (if (i32.gt_u (i32.load offset=1024 (local.get $word)) (local.get $skip))
          (then
            (call $copy
              (i32.add (local.get $to) (local.get $header))
              (i32.add (i32.trunc_f64_u (f64.load (local.get $wide))) (local.get $skip))
              (i32.sub (i32.load offset=1024 (local.get $word)) (local.get $skip)))))
        (local.set $jobs (i32.add (local.get $jobs) (i32.const 8)))
        (br $next)))))

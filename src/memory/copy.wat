;; The copy of payload. Compiled to copy.wasm.ts by `node scripts/wasm.ts`.
;;
;; run(jobs, count): does `count` copies. A job is three u32 in the memory itself, at jobs + 12 i:
;; to, from, length, addresses in the window. The two ends of a job do not overlap.
;;
;; A frame table (`copy.ts`, FRAME_TABLE) tells of up to 64 frames where each begins, where its header
;; to deliver lies, and lengths; or of up to 64 buffers where each lies and how long it is. Each frame
;; begins with a virtio_net_hdr of 12 - shift bytes.
;;
;; gather(table, first, count, to, stride, shift): copies the first 80 bytes of frames first … count - 1
;; to `to + stride * i + shift`, and never less than 64; sets num_buffers to 1 (shift 0), or makes a header
;; that asks for nothing (shift 12), and fills in headerAt, headerLength, skip, frameLength and tci (0).
;; Stops at the first frame that is in several pieces or not in the window and returns its index, or count.
;;
;; alike(table, first, count, at, stride, min, max, addresses, tci): looks at the gathered starts at
;; `at + stride * i` and returns the index of the first frame that needs a closer look, or count: shorter
;; than `min` or longer than `max`, with offloads, with an 802.1Q tag, or with other addresses than the
;; 12 bytes at `addresses` (destination, source). Sets the table's `bytes` to the sum of the lengths of
;; those before it, and their `tci` and `needs` (0).
;;
;; deliver(table, list, first, count, buffers, next, end): copies frames list[first … count - 1] (bytes:
;; indexes into the table) to buffers next … end - 1 of another table, header first, then the bytes that
;; it does not stand for, and sets `written` of each buffer. Stops at the first frame that is in several
;; pieces, is longer than its buffer, has a header of less than 20 bytes, or where one of them is not in
;; the window, or when there is no buffer left; returns how many it copied. Sets `bytes` of the buffers'
;; table to the sum of the lengths.
;;
;; Copies of less than 16 bytes: two overlapping words; up to 256: 16-byte vectors, the last of which overlaps
;; (so there is no loop for the odd bytes); above: memory.copy.
(module
  (memory (import "sluice" "window") 65536 65536 shared)

  (func $copy (param $to i32) (param $from i32) (param $n i32)
    (local $end i32) (local $next i32)
    ;; not 16 to 256
    (if (i32.gt_u (i32.sub (local.get $n) (i32.const 16)) (i32.const 240))
      (then
        (call $copyOdd (local.get $to) (local.get $from) (local.get $n))
        (return)))
    (local.set $end (i32.add (local.get $to) (local.get $n)))
    ;; The first and the last 16 bytes overlap what the loops write, which is aligned.
    (v128.store
      (i32.sub (local.get $end) (i32.const 16))
      (v128.load (i32.sub (i32.add (local.get $from) (local.get $n)) (i32.const 16))))
    (v128.store (local.get $to) (v128.load (local.get $from)))
    (local.set $next (i32.and (i32.add (local.get $to) (i32.const 16)) (i32.const -16)))
    (local.set $from (i32.add (local.get $from) (i32.sub (local.get $next) (local.get $to))))
    (block $small
      (loop $wide
        (br_if $small (i32.gt_u (i32.add (local.get $next) (i32.const 64)) (local.get $end)))
        (v128.store (local.get $next) (v128.load (local.get $from)))
        (v128.store offset=16 (local.get $next) (v128.load offset=16 (local.get $from)))
        (v128.store offset=32 (local.get $next) (v128.load offset=32 (local.get $from)))
        (v128.store offset=48 (local.get $next) (v128.load offset=48 (local.get $from)))
        (local.set $next (i32.add (local.get $next) (i32.const 64)))
        (local.set $from (i32.add (local.get $from) (i32.const 64)))
        (br $wide)))
    (block $done
      (loop $vector
        (br_if $done (i32.ge_u (i32.add (local.get $next) (i32.const 16)) (local.get $end)))
        (v128.store (local.get $next) (v128.load (local.get $from)))
        (local.set $next (i32.add (local.get $next) (i32.const 16)))
        (local.set $from (i32.add (local.get $from) (i32.const 16)))
        (br $vector))))

  ;; Lengths that $copy leaves to it: few bytes, or many.
  (func $copyOdd (param $to i32) (param $from i32) (param $n i32)
    (if (i32.gt_u (local.get $n) (i32.const 15))
      (then
        (memory.copy (local.get $to) (local.get $from) (local.get $n))
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

  ;; An arena address in the window as an integer. (To add 2^52 moves it to the low bits of the fraction;
  ;; call $low takes three times as long, to find out whether it must trap.)
  (func $low (param $address f64) (result i32)
    (i32.wrap_i64
      (i64.reinterpret_f64 (f64.add (local.get $address) (f64.const 4503599627370496)))))

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
    (param $table i32) (param $i i32) (param $count i32) (param $to i32) (param $stride i32) (param $shift i32)
    (result i32)
    (local $wide i32) (local $word i32) (local $address f64) (local $from i32) (local $total i32) (local $n i32)
    (local $touched i64) (local $last i32)
    ;; A load of each frame first, in a loop so short that the processor waits for many of them at once:
    ;; as a rule the sender has just written there, on another core.
    (local.set $n (local.get $i))
    (block $all
      (loop $touch
        (br_if $all (i32.ge_u (local.get $n) (local.get $count)))
        (local.set $address
          (f64.load (i32.add (local.get $table) (i32.shl (local.get $n) (i32.const 3)))))
        (br_if $all (f64.ge (local.get $address) (f64.const 4292870144)))
        (local.set $from (call $low (local.get $address)))
        (local.set $touched (i64.xor (local.get $touched) (i64.load (local.get $from))))
        (local.set $touched (i64.xor (local.get $touched) (i64.load offset=64 (local.get $from))))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br $touch)))
    (i64.store offset=2952 (local.get $table) (local.get $touched))
    (local.set $wide (i32.add (local.get $table) (i32.shl (local.get $i) (i32.const 3))))
    (local.set $word (i32.add (local.get $table) (i32.shl (local.get $i) (i32.const 2))))
    (local.set $to (i32.add (local.get $to) (i32.mul (local.get $i) (local.get $stride))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
        (br_if $done (i32.load offset=2048 (local.get $word)))
        (local.set $address (f64.load (local.get $wide)))
        (br_if $done (f64.ge (local.get $address) (f64.const 4292870144)))
        (f64.store offset=512 (local.get $wide) (f64.convert_i32_u (local.get $to)))
        (local.set $from (call $low (local.get $address)))
        (local.set $n (i32.add (local.get $to) (local.get $shift)))
        (v128.store (local.get $n) (v128.load (local.get $from)))
        (v128.store offset=16 (local.get $n) (v128.load offset=16 (local.get $from)))
        (v128.store offset=32 (local.get $n) (v128.load offset=32 (local.get $from)))
        (v128.store offset=48 (local.get $n) (v128.load offset=48 (local.get $from)))
        ;; The last vector of a shorter frame ends with it: what lies behind it may be far.
        (local.set $total (i32.load offset=1024 (local.get $word)))
        (local.set $last
          (i32.sub
            (select
              (local.get $total)
              (i32.const 80)
              (i32.lt_u (local.get $total) (i32.const 80)))
            (i32.const 16)))
        (if (i32.gt_s (local.get $last) (i32.const 48))
          (then
            (v128.store
              (i32.add (local.get $n) (local.get $last))
              (v128.load (i32.add (local.get $from) (local.get $last))))))
        ;; without a header: one that asks for nothing
        (if (i32.eq (local.get $shift) (i32.const 12))
          (then
            (i64.store (local.get $to) (i64.const 0))
            (i32.store offset=8 (local.get $to) (i32.const 0x10000))))
        ;; num_buffers: one
        (if (i32.eqz (local.get $shift)) (then (i32.store16 offset=10 (local.get $to) (i32.const 1))))
        (i32.store16 offset=2960
          (i32.add (local.get $table) (i32.shl (local.get $i) (i32.const 1)))
          (i32.const 0))
        (local.set $n (i32.sub (i32.const 80) (local.get $shift)))
        (local.set $n
          (select (local.get $total) (local.get $n) (i32.lt_u (local.get $total) (local.get $n))))
        (i32.store offset=1280 (local.get $word) (i32.add (local.get $n) (local.get $shift)))
        (i32.store offset=1536 (local.get $word) (local.get $n))
        (local.set $n (i32.sub (i32.const 12) (local.get $shift)))
        (i32.store offset=1792 (local.get $word)
          (select
            (i32.sub (local.get $total) (local.get $n))
            (i32.const 0)
            (i32.gt_u (local.get $total) (local.get $n))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (local.set $wide (i32.add (local.get $wide) (i32.const 8)))
        (local.set $word (i32.add (local.get $word) (i32.const 4)))
        (local.set $to (i32.add (local.get $to) (local.get $stride)))
        (br $next)))
    (local.get $i))

  (func (export "alike")
    (param $table i32) (param $i i32) (param $count i32) (param $at i32) (param $stride i32)
    (param $min i32) (param $max i32) (param $addresses i32) (param $tci i32)
    (result i32)
    (local $word i32) (local $length i32) (local $sum i32) (local $wanted v128)
    (local.set $word (i32.add (local.get $table) (i32.shl (local.get $i) (i32.const 2))))
    (local.set $at (i32.add (local.get $at) (i32.mul (local.get $i) (local.get $stride))))
    (local.set $max (i32.sub (local.get $max) (local.get $min)))
    (local.set $wanted (v128.load (local.get $addresses)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $length (i32.load offset=1792 (local.get $word)))
        (br_if $done
          (i32.gt_u (i32.sub (local.get $length) (local.get $min)) (local.get $max)))
        ;; flags and gso_type
        (br_if $done (i32.load16_u (local.get $at)))
        (br_if $done
          (v128.any_true
            (v128.and
              (v128.xor (v128.load offset=12 (local.get $at)) (local.get $wanted))
              (v128.const i32x4 -1 -1 -1 0))))
        ;; 0x8100, big-endian
        (br_if $done (i32.eq (i32.load16_u offset=24 (local.get $at)) (i32.const 0x0081)))
        (local.set $sum (i32.add (local.get $sum) (local.get $length)))
        (i32.store16 offset=2960
          (i32.add (local.get $table) (i32.shl (local.get $i) (i32.const 1)))
          (local.get $tci))
        (i32.store8 offset=3088 (i32.add (local.get $table) (local.get $i)) (i32.const 0))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (local.set $word (i32.add (local.get $word) (i32.const 4)))
        (local.set $at (i32.add (local.get $at) (local.get $stride)))
        (br $next)))
    (i32.store offset=2944 (local.get $table) (local.get $sum))
    (local.get $i))

  ;; Bytes of the frame at $word (of a table) that its header does not stand for.
  (func $rest (param $word i32) (result i32)
    (local $total i32) (local $skip i32)
    (local.set $total (i32.load offset=1024 (local.get $word)))
    (local.set $skip (i32.load offset=1536 (local.get $word)))
    (select
      (i32.sub (local.get $total) (local.get $skip))
      (i32.const 0)
      (i32.gt_u (local.get $total) (local.get $skip))))

  (func (export "deliver")
    (param $table i32) (param $list i32) (param $first i32) (param $count i32)
    (param $buffers i32) (param $next i32) (param $end i32)
    (result i32)
    (local $i i32) (local $k i32) (local $wide i32) (local $word i32) (local $to i32) (local $from i32)
    (local $header i32) (local $rest i32) (local $sum i32) (local $address f64) (local $same i32)
    ;; No more frames than buffers.
    (local.set $i (i32.sub (local.get $end) (local.get $next)))
    (if (i32.lt_s (local.get $i) (i32.const 0)) (then (local.set $i (i32.const 0))))
    (local.set $i (i32.add (local.get $first) (local.get $i)))
    (local.set $count
      (select
        (local.get $i)
        (local.get $count)
        (i32.lt_u (local.get $i) (local.get $count))))
    ;; What can be delivered, and the beginning of each frame: as a rule the driver's processor has that line
    ;; of the buffer, and stores as few as these wait for many lines at once.
    (local.set $i (local.get $first))
    (local.set $k (local.get $next))
    (block $checked
      (loop $frame
        (br_if $checked (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $word (i32.load8_u (i32.add (local.get $list) (local.get $i))))
        (local.set $wide (i32.add (local.get $table) (i32.shl (local.get $word) (i32.const 3))))
        (local.set $word (i32.add (local.get $table) (i32.shl (local.get $word) (i32.const 2))))
        (local.set $header (i32.load offset=1280 (local.get $word)))
        (br_if $checked (i32.lt_u (local.get $header) (i32.const 20)))
        (local.set $rest (i32.add (local.get $header) (call $rest (local.get $word))))
        ;; the buffer: long enough, and in the window
        (local.set $to (i32.add (local.get $buffers) (i32.shl (local.get $k) (i32.const 2))))
        (br_if $checked (i32.gt_u (local.get $rest) (i32.load offset=2304 (local.get $to))))
        (local.set $address
          (f64.load (i32.add (local.get $buffers) (i32.shl (local.get $k) (i32.const 3)))))
        (br_if $checked (f64.ge (local.get $address) (f64.const 4292870144)))
        ;; the frame: in one piece, and in the window
        (br_if $checked (i32.load offset=2048 (local.get $word)))
        (br_if $checked (f64.ge (f64.load (local.get $wide)) (f64.const 4292870144)))
        (i32.store offset=2560 (local.get $to) (local.get $rest))
        (local.set $sum (i32.sub (i32.add (local.get $sum) (local.get $rest)) (i32.const 12)))
        (local.set $to (call $low (local.get $address)))
        (local.set $from (call $low (f64.load offset=512 (local.get $wide))))
        (i64.store offset=12 (local.get $to) (i64.load offset=12 (local.get $from)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (local.set $k (i32.add (local.get $k) (i32.const 1)))
        (br $frame)))
    (local.set $count (local.get $i))
    (i32.store offset=2944 (local.get $buffers) (local.get $sum))
    (local.set $same (i32.const 1))
    ;; All of them. Loads of the buffers only now: with a line, the processor may fetch those beside it, to
    ;; read them, and would have to ask once more when it writes there.
    (local.set $i (local.get $first))
    (local.set $k (i32.add (local.get $buffers) (i32.shl (local.get $next) (i32.const 3))))
    (block $done
      (loop $frame
        (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $word (i32.load8_u (i32.add (local.get $list) (local.get $i))))
        (local.set $wide (i32.add (local.get $table) (i32.shl (local.get $word) (i32.const 3))))
        (local.set $word (i32.add (local.get $table) (i32.shl (local.get $word) (i32.const 2))))
        (local.set $header (i32.load offset=1280 (local.get $word)))
        (local.set $to (call $low (f64.load (local.get $k))))
        (local.set $from (call $low (f64.load offset=512 (local.get $wide))))
        ;; Whoever sends from the buffers that it received in, as a forwarding guest does, gives them back
        ;; with the virtio_net_hdr that is to be written. A load that finds it leaves the cache line with
        ;; both processors, where a store would take it from the driver's. Once per run it is looked in vain.
        (if
          (i32.eqz
            (i32.and
              (local.get $same)
              (i32.and
                (i64.eq (i64.load (local.get $to)) (i64.load (local.get $from)))
                (i32.eq (i32.load offset=8 (local.get $to)) (i32.load offset=8 (local.get $from))))))
          (then
            (local.set $same (i32.const 0))
            (i64.store (local.get $to) (i64.load (local.get $from)))
            (i32.store offset=8 (local.get $to) (i32.load offset=8 (local.get $from)))))
        (call $copy
          (i32.add (local.get $to) (i32.const 12))
          (i32.add (local.get $from) (i32.const 12))
          (i32.sub (local.get $header) (i32.const 12)))
        (local.set $rest (call $rest (local.get $word)))
        (if (local.get $rest)
          (then
            (call $copy
              (i32.add (local.get $to) (local.get $header))
              (i32.add
                (call $low (f64.load (local.get $wide)))
                (i32.load offset=1536 (local.get $word)))
              (local.get $rest))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (local.set $k (i32.add (local.get $k) (i32.const 8)))
        (br $frame)))
    (i32.sub (local.get $count) (local.get $first))))

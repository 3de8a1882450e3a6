import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EPOLLET, EPOLLHUP, EPOLLIN, Epoll } from './epoll.ts';
import { closeFd, createEventFd, createPipe, drainEventFd, signalEventFd } from './fd.ts';
import { type Poller, PollLoop } from './poll-loop.ts';

describe('Epoll', () => {
  test('calls the handler of what is ready, once for each change when edge-triggered', () => {
    const epoll = new Epoll();
    const fd = createEventFd();
    const seen: number[] = [];
    epoll.add(fd, EPOLLIN | EPOLLET, (events) => seen.push(events));
    assert.equal(epoll.wait(0), 0);
    signalEventFd(fd);
    assert.equal(epoll.wait(0), 1);
    assert.equal(epoll.wait(0), 0);
    signalEventFd(fd);
    epoll.wait(0);
    assert.deepEqual(seen, [EPOLLIN, EPOLLIN]);
    epoll.remove(fd);
    signalEventFd(fd);
    assert.equal(epoll.wait(0), 0);
    closeFd(fd);
    epoll.close();
  });

  test('reports a hang-up', () => {
    const epoll = new Epoll();
    const { read, write } = createPipe();
    let events = 0;
    epoll.add(read, EPOLLIN, (now) => {
      events = now;
    });
    closeFd(write);
    epoll.wait(0);
    assert.equal(events & EPOLLHUP, EPOLLHUP);
    epoll.remove(read);
    closeFd(read);
    epoll.close();
  });

  test('drops the event of a descriptor that a handler of the same round has removed', () => {
    const epoll = new Epoll();
    const fds = [createEventFd(), createEventFd()];
    let calls = 0;
    for (const fd of fds) {
      epoll.add(fd, EPOLLIN, () => {
        calls++;
        for (const other of fds) if (epoll.has(other)) epoll.remove(other);
      });
      signalEventFd(fd);
    }
    assert.equal(epoll.wait(0), 2);
    assert.equal(calls, 1);
    for (const fd of fds) closeFd(fd);
    epoll.close();
  });

  test('names the descriptor in its errors', () => {
    const epoll = new Epoll();
    assert.throws(() => epoll.add(99_999, EPOLLIN, () => undefined), /EBADF: epoll_ctl fd 99999/);
    epoll.close();
  });
});

/** Work that is announced through an eventfd, as a ring with kicks. */
class FakeRing implements Poller {
  available = 0;
  done = 0;
  armed = false;
  arms = 0;
  onArm: (() => void) | undefined;

  poll(): number {
    const work = this.available;
    this.available = 0;
    this.done += work;
    return work;
  }

  arm(): boolean {
    this.armed = true;
    this.arms++;
    this.onArm?.();
    return this.available > 0;
  }

  disarm(): void {
    this.armed = false;
  }
}

describe('PollLoop', () => {
  test('does work, arms, sleeps, wakes by a descriptor and goes on', () => {
    const loop = new PollLoop({ idlePollUs: 0 });
    const ring = new FakeRing();
    const fd = createEventFd();
    loop.addPoller(ring);
    ring.available = 3;
    loop.epoll.add(fd, EPOLLIN, () => {
      drainEventFd(fd);
      assert.equal(ring.armed, true);
      ring.available = 4;
      loop.setTimer(5000, () => loop.stop());
    });
    // The other side's kick, at a moment when the ring is armed.
    ring.onArm = () => {
      if (ring.arms === 1) signalEventFd(fd);
    };
    loop.run();
    assert.equal(ring.done, 7);
    assert.equal(ring.armed, false);
    loop.close();
    closeFd(fd);
  });

  test('does not sleep on work that came while it armed', () => {
    const loop = new PollLoop({ idlePollUs: 0 });
    const ring = new FakeRing();
    loop.addPoller(ring);
    ring.onArm = () => {
      // No kick comes for this: it must be seen by the look after arming.
      if (ring.arms === 1) ring.available = 5;
      else loop.setTimer(0, () => loop.stop());
    };
    loop.run();
    assert.equal(ring.done, 5);
    loop.close();
  });

  test('fires timers in time order of their rounds, not those that were cancelled', () => {
    const loop = new PollLoop({ idlePollUs: 0 });
    const fired: string[] = [];
    loop.setTimer(3000, () => {
      fired.push('late');
      loop.stop();
    });
    loop.setTimer(100, () => fired.push('early'));
    loop.setTimer(200, () => fired.push('never')).cancel();
    loop.run();
    assert.deepEqual(fired, ['early', 'late']);
    loop.close();
  });

  test('looks in its sleep for work that nobody announces, and sleeps on if there is none', () => {
    const loop = new PollLoop({ idlePollUs: 0 });
    const ring = new FakeRing();
    let sleepsAtWork = 0;
    ring.onArm = () => {
      loop.wakeWithin(1000);
      // What the other side does while the loop sleeps: no work is seen by the look after arming.
      if (ring.arms === 3) queueWork();
      if (ring.done > 0) loop.setTimer(0, () => loop.stop());
    };
    const queueWork = (): void => {
      sleepsAtWork = loop.sleeps;
      const { disarm } = ring;
      ring.disarm = () => {
        disarm.call(ring);
        ring.available = 2;
        ring.disarm = disarm;
      };
    };
    loop.addPoller(ring);
    loop.run();
    assert.equal(ring.done, 2);
    assert.equal(sleepsAtWork, 2, 'it slept before');
    assert.equal(ring.armed, false);
    loop.close();
  });

  test('naps end when a descriptor is ready, and timers fire between them', () => {
    const loop = new PollLoop({ idlePollUs: 0 });
    const ring = new FakeRing();
    let naps = 0;
    ring.onArm = () => {
      naps++;
      loop.wakeWithin(10);
    };
    loop.addPoller(ring);
    const event = createEventFd();
    const seen: string[] = [];
    loop.epoll.add(event, EPOLLIN | EPOLLET, () => {
      seen.push('event');
      loop.stop();
    });
    loop.setTimer(3000, () => {
      seen.push('timer');
      signalEventFd(event);
    });
    loop.run();
    assert.deepEqual(seen, ['timer', 'event']);
    assert.ok(naps > 2, `${naps} naps in 3 ms`);
    closeFd(event);
    loop.close();
  });

  test('a longer nap than a second ends with what wakes it', () => {
    const loop = new PollLoop({ idlePollUs: 0 });
    const ring = new FakeRing();
    ring.onArm = () => loop.wakeWithin(5_000_000);
    loop.addPoller(ring);
    loop.setTimer(1000, () => loop.stop());
    loop.run();
    assert.equal(ring.armed, false);
    loop.close();
  });

  test('sleeps while nothing happens', () => {
    const loop = new PollLoop({ idlePollUs: 100 });
    loop.addPoller(new FakeRing());
    loop.setTimer(200_000, () => loop.stop());
    const before = process.cpuUsage();
    loop.run();
    const used = process.cpuUsage(before);
    assert.ok(loop.sleeps >= 1);
    // Not a measure of speed: a loop that spins would use all of the 200 ms.
    assert.ok(used.user + used.system < 100_000, `${used.user + used.system} us of processor`);
    loop.close();
  });

  test('ends at once when it is stopped, without sleeping first', () => {
    // Whichever turn it is: nothing would wake a loop that slept on.
    for (let last = 1; last <= 64; last++) {
      const loop = new PollLoop({ idlePollUs: 0 });
      const fd = createEventFd();
      signalEventFd(fd);
      loop.epoll.add(fd, EPOLLIN, () => undefined);
      let turns = 0;
      let armed = 0;
      let armedAtStop = 0;
      loop.addPoller({
        poll: () => {
          if (++turns === last) {
            armedAtStop = armed;
            loop.stop();
          }
          return 0;
        },
        arm: () => {
          armed++;
          return false;
        },
        disarm: () => undefined,
      });
      loop.run();
      assert.equal(turns, last);
      assert.equal(armed, armedAtStop);
      loop.close();
      closeFd(fd);
    }
  });

  test('stops when a handler says so, however long the turn before has taken', () => {
    for (let round = 0; round < 20; round++) {
      const loop = new PollLoop({ idlePollUs: 0 });
      const ring = new FakeRing();
      const fd = createEventFd();
      loop.addPoller(ring);
      loop.epoll.add(fd, EPOLLIN, () => {
        drainEventFd(fd);
        loop.stop();
      });
      let turns = 0;
      loop.addPoller({
        poll: () => {
          // So much time passes that descriptors are looked at before the loop would sleep.
          if (++turns === 60) signalEventFd(fd);
          if (turns >= 60) for (const end = performance.now() + 0.05; performance.now() < end; );
          return 0;
        },
        arm: () => false,
        disarm: () => undefined,
      });
      loop.run();
      assert.equal(ring.armed, false);
      loop.close();
      closeFd(fd);
    }
  });

  test('a poller that was removed is not polled again', () => {
    const loop = new PollLoop({ idlePollUs: 0 });
    const ring = new FakeRing();
    loop.addPoller(ring);
    loop.removePoller(ring);
    ring.available = 1;
    loop.setTimer(0, () => loop.stop());
    loop.run();
    assert.equal(ring.done, 0);
    loop.close();
  });

  test('looks at an eager socket while rings are busy, until it is at rest', () => {
    const loop = new PollLoop();
    const seen: string[] = [];
    const socket = (name: string, looks: number) => ({
      left: looks,
      look() {
        seen.push(name);
        this.left--;
        if (this.left === 0) loop.rest(this);
        return true;
      },
    });
    const first = socket('first', 2);
    const second = socket('second', 1);
    loop.hasten(first);
    loop.hasten(second);
    loop.hasten(first);
    let turns = 0;
    loop.addPoller({
      poll: () => {
        if (++turns === 100) loop.stop();
        return 1;
      },
      arm: () => false,
      disarm: () => undefined,
    });
    loop.run();
    assert.deepEqual(seen, ['second', 'first', 'first']);
    loop.close();
  });

  test('polls on as long as an eager socket brings messages', () => {
    const loop = new PollLoop();
    let looks = 0;
    const socket = {
      look: () => {
        // As sessions do: else it would be forgotten, however much comes.
        loop.hasten(socket);
        if (++looks === 1000) loop.stop();
        return true;
      },
    };
    loop.hasten(socket);
    loop.run();
    assert.equal(looks, 1000);
    assert.equal(loop.sleeps, 0);
    loop.close();
  });

  test('sleeps when its time is over, however slow the looks at eager sockets are', () => {
    const loop = new PollLoop({ idlePollUs: 25 });
    let looks = 0;
    const socket = {
      look: () => {
        looks++;
        for (const end = performance.now() + 0.2; performance.now() < end; );
        return false;
      },
    };
    loop.addPoller({
      poll: () => 0,
      arm: () => {
        loop.stop();
        loop.setTimer(0, () => undefined);
        return false;
      },
      disarm: () => undefined,
    });
    loop.hasten(socket);
    loop.run();
    assert.equal(loop.sleeps, 1);
    // The first is in the turn from which on the loop is idle, the second is past its time.
    assert.equal(looks, 2);
    loop.close();
  });

  test('forgets an eager socket that nothing comes on', () => {
    const loop = new PollLoop();
    let looks = 0;
    loop.hasten({
      look: () => {
        looks++;
        return false;
      },
    });
    let before = 0;
    loop.setTimer(20_000, () => {
      before = looks;
    });
    loop.setTimer(40_000, () => loop.stop());
    loop.addPoller({ poll: () => 1, arm: () => false, disarm: () => undefined });
    loop.run();
    assert.ok(before > 0);
    assert.equal(looks, before);
    loop.close();
  });
});

import assert from 'node:assert/strict';
import test from 'node:test';
import {
  IXGBE_VFMAILBOX_ACK,
  IXGBE_VFMAILBOX_PF_ACK,
  IXGBE_VFMAILBOX_PF_STATUS,
  IXGBE_VFMAILBOX_REQUEST,
  IXGBE_VFMAILBOX_RESET_DONE,
  IXGBE_VFMAILBOX_VF_OWNS,
} from '../../spec/ixgbe-mailbox.ts';
import { Mailbox, type MailboxPeer } from './mailbox.ts';

/** A mailbox whose other end keeps what it is sent, and answers with one word. */
function withPeer(answer?: number): {
  readonly mailbox: Mailbox;
  readonly requests: number[][];
  readonly notices: { count: number };
  acknowledged: number;
} {
  const mailbox = new Mailbox();
  const seen = { mailbox, requests: [] as number[][], notices: { count: 0 }, acknowledged: 0 };
  const peer: MailboxPeer = {
    request: (message) => {
      seen.requests.push(Array.from(message));
      if (answer !== undefined) mailbox.answer(Uint32Array.of(answer), 1);
    },
    acknowledged: () => {
      seen.acknowledged++;
    },
  };
  mailbox.peer = peer;
  mailbox.onNotice = () => {
    seen.notices.count++;
  };
  return seen;
}

test('the first read tells that the physical function has been reset', () => {
  const mailbox = new Mailbox();
  assert.equal(mailbox.readControl(), IXGBE_VFMAILBOX_RESET_DONE);
  assert.equal(mailbox.readControl(), 0);
});

test('a message comes to the other end as it was when it was sent', () => {
  const { mailbox, requests } = withPeer();
  mailbox.writeControl(IXGBE_VFMAILBOX_VF_OWNS);
  for (let i = 0; i < 16; i++) mailbox.writeWord(i, 100 + i);
  mailbox.writeControl(IXGBE_VFMAILBOX_REQUEST);
  mailbox.writeWord(0, 1);
  assert.deepEqual(requests, [Array.from({ length: 16 }, (_, i) => 100 + i)]);
});

test('request and answer set their bits, which a read clears, and interrupt', () => {
  const { mailbox, notices } = withPeer(0x8000_0001);
  mailbox.readControl();
  mailbox.writeControl(IXGBE_VFMAILBOX_VF_OWNS);
  assert.equal(mailbox.readControl(), IXGBE_VFMAILBOX_VF_OWNS);
  mailbox.writeControl(IXGBE_VFMAILBOX_REQUEST);
  assert.equal(notices.count, 2);
  assert.equal(mailbox.readWord(0), 0x8000_0001);
  assert.equal(mailbox.readControl(), IXGBE_VFMAILBOX_PF_ACK | IXGBE_VFMAILBOX_PF_STATUS);
  assert.equal(mailbox.readControl(), 0);
});

test('an answer waits while the VF owns the words, as with API 1.5', () => {
  const { mailbox } = withPeer(7);
  mailbox.writeControl(IXGBE_VFMAILBOX_VF_OWNS);
  mailbox.writeWord(0, 1);
  mailbox.writeControl(IXGBE_VFMAILBOX_VF_OWNS | IXGBE_VFMAILBOX_REQUEST);
  assert.equal(mailbox.readWord(0), 1, 'not overwritten');
  const status = mailbox.readControl();
  assert.equal(status & IXGBE_VFMAILBOX_PF_ACK, IXGBE_VFMAILBOX_PF_ACK);
  assert.equal(status & IXGBE_VFMAILBOX_PF_STATUS, 0);
  mailbox.writeControl(0);
  assert.equal(mailbox.readControl(), IXGBE_VFMAILBOX_PF_STATUS);
  assert.equal(mailbox.readWord(0), 7);
});

test('a notice does not take the place of an answer that was not read', () => {
  const { mailbox } = withPeer(7);
  mailbox.writeControl(IXGBE_VFMAILBOX_REQUEST);
  mailbox.notify(0x100);
  mailbox.notify(0x2000_0100);
  assert.equal(mailbox.readWord(0), 7);
  mailbox.readControl();
  assert.equal(mailbox.readWord(0), 7, 'reading the bits is not reading the words');
  mailbox.writeControl(IXGBE_VFMAILBOX_ACK);
  assert.equal(mailbox.readWord(0), 0x2000_0100, 'the last one counts');
  assert.equal(mailbox.readControl(), IXGBE_VFMAILBOX_PF_STATUS);
});

test('notices need no acknowledgement', () => {
  const { mailbox } = withPeer();
  for (let i = 1; i <= 1000; i++) mailbox.notify(i);
  assert.equal(mailbox.readWord(0), 1000);
});

test('acknowledgements are told, and half messages are nobody’s business', () => {
  const seen = withPeer(7);
  seen.mailbox.writeControl(IXGBE_VFMAILBOX_VF_OWNS);
  seen.mailbox.writeWord(3, 5);
  seen.mailbox.writeControl(0);
  assert.deepEqual(seen.requests, []);
  seen.mailbox.writeControl(IXGBE_VFMAILBOX_ACK);
  assert.equal(seen.acknowledged, 1);
});

test('a reset ends what was under way', () => {
  const { mailbox } = withPeer(7);
  mailbox.readControl();
  mailbox.writeControl(IXGBE_VFMAILBOX_VF_OWNS | IXGBE_VFMAILBOX_REQUEST);
  mailbox.notify(9);
  mailbox.writeWord(4, 4);
  mailbox.reset();
  assert.equal(mailbox.readControl(), IXGBE_VFMAILBOX_RESET_DONE, 'told anew');
  mailbox.writeControl(0);
  assert.equal(mailbox.readControl(), 0, 'neither answer nor notice comes any more');
  assert.equal(mailbox.readWord(4), 0);
});

"""What the waiting loops rest on in pynetdicom, and that they wait."""

import inspect

from pynetdicom import acse, association, dimse, dul, transport


def test_the_loops_are_still_those_that_were_changed() -> None:
    """Where this fails, read the new loops before the numbers here are changed."""
    reads = inspect.getsource(dul.DULServiceProvider.run_reactor)
    assert "time.sleep(self._run_loop_delay)" in reads
    assert reads.index("self._process_recv_primitive()") < reads.index("self._is_transport_event()")
    assert "self.socket.ready" in inspect.getsource(dul.DULServiceProvider._is_transport_event)
    assert "self.to_provider_queue.put" in inspect.getsource(dul.DULServiceProvider.send_pdu)
    serves = inspect.getsource(association.Association._run_reactor)
    assert "self.dimse.get_msg(block=False)" in serves
    assert serves.index("get_msg") < serves.index("is_release_requested") < serves.index("is_aborted")
    assert "self.dul.peek_next_pdu()" in inspect.getsource(acse.ACSE.is_aborted)
    assert "self.msg_queue.get" in inspect.getsource(dimse.DIMSEServiceProvider.get_msg)
    assert isinstance(inspect.getattr_static(transport.AssociationSocket, "ready"), property)
    assert "assoc.set_socket(sock)" in inspect.getsource(transport.RequestHandler._create_association)

"""What the waiting loops rest on in pynetdicom, and that they wait."""

import inspect

from pynetdicom import acse, association, dimse, dimse_messages, dul, fsm, pdu, transport


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


def test_a_message_is_still_put_together_where_fragments_are_taken() -> None:
    """Where this fails, read `pacs.fragments` beside what pynetdicom does now."""
    reads = inspect.getsource(dul.DULServiceProvider._read_pdu_data)
    assert "self.socket.recv(6)" in reads
    assert "self.socket.recv(pdu_length)" in reads
    assert reads.index("self._decode_pdu") < reads.index("self.event_queue.put(event)") < reads.index("_recv_pdu.put(")
    assert "self._read_pdu_data()" in inspect.getsource(dul.DULServiceProvider._is_transport_event)
    assert dul._PDU_TYPES[b"\x04"] == (pdu.P_DATA_TF, "Evt10")
    assert fsm.TRANSITION_TABLE["Evt10", "Sta6"] == "DT-2"
    assert "dul._recv_pdu.get(False)" in inspect.getsource(fsm.DT_2)
    receives = inspect.getsource(dimse.DIMSEServiceProvider.receive_primitive)
    assert "self.message.message_to_primitive()" in receives
    assert "self.message = None" in receives
    decodes = inspect.getsource(dimse_messages.DIMSEMessage.decode_msg)
    assert "self.__class__ = _MESSAGE_TYPES[" in decodes
    assert "self.data_set).write(data[1:])" in decodes
    makes = inspect.getsource(dimse_messages.DIMSEMessage.message_to_primitive)
    assert [line.split("=")[0].strip() for line in makes.splitlines() if "primitive._" in line] == [
        "primitive._context_id", "primitive._dataset_path", "primitive._dataset_file",
    ]  # fmt: skip

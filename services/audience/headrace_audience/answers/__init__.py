"""What people ask of audiences: size before saving, why somebody is in or out, overlap, history, when it ends."""
